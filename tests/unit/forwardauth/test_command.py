"""The command line refuses what would be open."""

import pytest
from click.testing import CliRunner

from zerotrust.cli.main import zerotrust

SERVER = "spiffe://example.org/ns/shop/sa/orders:8443"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "nginx"], "--server"),
        (["--server", SERVER], "--from"),
        (["--server", SERVER, "--from", "apache"], "nginx"),
        (["--server", SERVER, "--from", "nginx", "--host", "0.0.0.0"], "must be a loopback address"),
        (["--server", SERVER, "--from", "nginx", "--host", "localhost"], "must be a loopback address"),
        (["--server", SERVER, "--from", "nginx", "--opa", "http://192.0.2.1:8181"], "OPA must be at http://<loopback"),
        (["--server", "orders", "--from", "nginx"], "must end in :<port"),
        (["--server", SERVER, "--server", SERVER, "--from", "nginx"], "two servers"),
        (["--server", SERVER, "--from", "nginx", "--client-certificate-header", "X_Cert"], "must be a header's name"),
    ],
)
def test_what_it_refuses(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(zerotrust, ["forward-auth", *arguments])
    assert result.exit_code != 0
    assert says in result.output
