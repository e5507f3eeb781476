"""Options of `zerotrust controller` that are read before anything is started."""

import pytest
from click.testing import CliRunner

from zerotrust.cli.main import zerotrust


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "login.example.org", ""])
def test_an_address_range_that_is_none_is_refused_with_an_example(text: str) -> None:
    result = CliRunner().invoke(zerotrust, ["controller", "--allow-private-issuers", text])
    assert result.exit_code == 2
    assert "--allow-private-issuers" in result.output
    assert "write for example 10.20.0.0/16 or fd00:10::/64" in result.output
