"""Certificates and tokens for the tests of the Rego modules, made anew for each run: `python -m` writes them as JSON."""

import json
import urllib.parse
from typing import Any

from tests.support import certificates, tokens
from tests.support.rego import CLIENT


def fixtures() -> dict[str, Any]:
    """Certificates and tokens that hold at the time at which the tests are."""
    authority, foreign = certificates.a_root(), certificates.a_root()
    mine = _leaf(authority, CLIENT)
    return {
        "authority": certificates.pem(authority.certificate).decode(),
        "certificate": mine,
        "escaped": urllib.parse.quote(mine, safe=""),
        "foreign": _leaf(foreign, CLIENT),
        "other": _leaf(authority, f"{CLIENT}-2"),
        "not_before": int(certificates.LEAF.not_before.timestamp()),
        "provider": tokens.provider().document(),
        "tokens": {
            "plain": tokens.token(),
            "rsa": tokens.token({"aud": ["orders", "billing"], "nbf": tokens.SECONDS}, algorithm="RS256"),
            "of a party": tokens.token({"nonce": "n", "aud": ["orders", "billing"], "azp": "orders"}),
            "of one audience": tokens.token({"nonce": "n", "aud": ["orders"]}),
        },
        "unknown_key": tokens.token(kid="unknown"),
    }


def _leaf(authority: certificates.Issued, uri: str) -> str:
    return certificates.pem(certificates.a_leaf(authority, uris=(uri.encode(),)).certificate).decode()


if __name__ == "__main__":
    print(json.dumps({"fixtures": fixtures()}))
