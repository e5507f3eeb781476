"""No log line holds a secret, whatever somebody passes in."""

import base64
import io
import json
import logging
import os
from collections.abc import Iterator

import pytest

from zerotrust.pki import keys
from zerotrust.telemetry.logs import REDACTED, LogFormat, configure, redact

PEM = keys.to_pkcs8(keys.generate("ECDSA-P256")).decode()


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(
    "secret",
    [
        PEM,
        PEM.replace("\n", "\\n"),
        base64.b64encode(PEM.encode()).decode(),
        "Bearer abcdef.123",
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl",
        "sk_partner1.c2VjcmV0c2VjcmV0",
        base64.b64encode(os.urandom(256)).decode(),
    ],
)
def test_secrets_are_redacted_wherever_they_stand(
    secret: str, log_format: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(log_format)
    logger = logging.getLogger("test")
    logger.info("read %s", secret, extra={"object": f"Secret shop/{secret}"})
    try:
        raise ValueError(f"cannot use {secret}")
    except ValueError:
        logger.exception("failed")
    text = capsys.readouterr().err
    assert secret not in text
    assert REDACTED in text
    for line in PEM.splitlines()[1:-1]:
        assert line not in text


@pytest.mark.parametrize(
    "harmless",
    [
        "spiffe://example.org/ns/shop/sa/orders",
        "create Secret shop/orders-svid: 409 AlreadyExists",
        "a" * 40,
        "660df3598bf490001234567890abcdef660df3598bf490001234567890abcdef",
        "zerotrust-controller-7d9c5b8f6d-abcde-12345-67890-some-very-long-pod-name-that-goes-on",
    ],
)
def test_names_and_hashes_pass(harmless: str) -> None:
    assert redact(harmless) == harmless


def test_json_lines_carry_the_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    logging.getLogger("test").warning("said %d", 1, extra={"object": "ServiceIdentity shop/orders"})
    line = json.loads(capsys.readouterr().err)
    assert line["object"] == "ServiceIdentity shop/orders"
    assert line["level"] == "WARNING"
    assert line["message"] == "said 1"


def test_a_line_that_cannot_be_written_is_not_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure("text")
    logging.getLogger().handlers[0].setStream(stream)  # type: ignore[attr-defined]
    stream.close()
    logging.getLogger("test").info("Bearer %s", "abcdef.123")
    assert "abcdef" not in capsys.readouterr().err
