"""Signed tokens for tests, good by default, with every part switchable; and what OPA makes of them.

Signed with cryptography directly, and without the operator's own code, which is what they judge.
"""

import base64
import functools
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hack.gotools import find_or_build
from zerotrust.policy.evaluate import Token
from zerotrust.providers.tokens import Provider, TokenRefused, verify

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
ISSUER = "https://login.example.org/realms/corp"
RULES = Path(__file__).resolve().parents[2] / "operator" / "zerotrust" / "rego" / "authz" / "tokens.rego"
CURVES = {"ES256": ("P-256", 32), "ES384": ("P-384", 48), "ES512": ("P-521", 66)}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Answer = dict[str, Any] | None


@functools.cache
def private_key(kind: str) -> PrivateKey:
    """One key for each name: `ES256`, `ES256 other`, `RSA`, `RSA 1024`, `EdDSA`, …"""
    match kind.split():
        case ["RSA", *rest]:
            return rsa.generate_private_key(65537, int(rest[0]) if rest and rest[0].isdigit() else 2048)
        case ["EdDSA", *_]:
            return ed25519.Ed25519PrivateKey.generate()
        case [algorithm, *_]:
            curve = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}[algorithm]
            return ec.generate_private_key(curve())
    raise AssertionError(kind)


def encoded(octets: bytes | str) -> str:
    return base64.urlsafe_b64encode(octets.encode() if isinstance(octets, str) else octets).rstrip(b"=").decode()


def jwk(kind: str, kid: str | None, **members: Any) -> dict[str, Any]:
    """The public key of that name as a JWK; a member None is left out."""
    return {name: value for name, value in {**_material(kind), "kid": kid, **members}.items() if value is not None}


def _material(kind: str) -> dict[str, Any]:
    key = private_key(kind)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "n": encoded(numbers.n.to_bytes(key.key_size // 8)), "e": "AQAB"}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_key().public_bytes_raw())}
    curve, size = CURVES[kind.split()[0]]
    point = key.public_key().public_numbers()
    return {"kty": "EC", "crv": curve, "x": encoded(point.x.to_bytes(size)), "y": encoded(point.y.to_bytes(size))}


def jwks(*keys: Mapping[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


def signature(algorithm: str, key: PrivateKey, signed: bytes, salt: int | None = None) -> bytes:
    """Sign as RFC 7518 §3 says for the algorithm."""
    digest = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}.get(algorithm[2:], hashes.SHA256)()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.key_size + 7) // 8
        return b"".join(number.to_bytes(size) for number in decode_dss_signature(key.sign(signed, ec.ECDSA(digest))))
    if algorithm.startswith("PS"):
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size if salt is None else salt)
        return key.sign(signed, pss, digest)
    return key.sign(signed, padding.PKCS1v15(), digest)


def claims(**changes: Any) -> dict[str, Any]:
    """What a good token says; a claim None is left out, and `NULL` stands for null."""
    good = {
        "iss": ISSUER,
        "sub": "a2b4",
        "aud": "orders",
        "iat": SECONDS - 60,
        "exp": SECONDS + 300,
        "groups": ["support", "sre"],
        "scope": "orders:read orders:write",
        "email_verified": True,
    }
    return {
        name: None if value == "NULL" else value for name, value in {**good, **changes}.items() if value is not None
    }


def token(
    changes: Mapping[str, Any] | None = None,
    *,
    algorithm: str = "ES256",
    kind: str = "",
    text: str | None = None,
    header_text: str | None = None,
    **header: Any,
) -> str:
    """A token of `claims(**changes)`, or of that `text`, signed with the key `kind` (default: one for the algorithm).

    Header parameters are given by name; one that is None is left out.
    """
    kind = kind or ("RSA" if algorithm[:2] in {"RS", "PS"} else algorithm)
    parameters = {"alg": algorithm, "kid": kind, "typ": "JWT", **header}
    written = header_text or json.dumps({name: value for name, value in parameters.items() if value is not None})
    body = json.dumps(claims(**(changes or {}))) if text is None else text
    signed = f"{encoded(written)}.{encoded(body)}"
    return f"{signed}.{encoded(signature(algorithm, private_key(kind), signed.encode()))}"


def provider(*keys: Mapping[str, Any], **changes: Any) -> Provider:
    """An identity provider with these keys; by default one key for each algorithm."""
    published = keys or tuple(jwk(kind, kind) for kind in ("ES256", "ES384", "ES512", "RSA", "EdDSA"))
    values: dict[str, Any] = {
        "name": "corp",
        "issuer": ISSUER,
        "algorithms": (*CURVES, "RS256", "PS256", "EdDSA"),
        "jwks": jwks(*published),
        "leeway": 60,
        "not_after": SECONDS + 3600,
    }
    return Provider(**{**values, **changes})


@dataclass(frozen=True)
class Case:
    """A token, the trust domain's providers, and whether it is accepted, with the access token `beside` it, if there is one.

    `moment` is in seconds since 1970.
    """

    name: str
    raw: Any
    accepted: bool = False
    providers: tuple[Provider, ...] = field(default_factory=lambda: (provider(),))
    moment: float = SECONDS
    beside: str | None = None


VERIFIED = "verified(one.raw, one.beside, one.domain, one.now_ns)"


def rego_answers(cases: Iterable[Case], folder: Path, *, rule: str = VERIFIED, tool: str = "opa") -> list[Answer]:
    """What real OPA, with the shipped rules, makes of each token, in one run; None where the rule is undefined."""
    cases = list(cases)
    domains: dict[tuple[Provider, ...], str] = {}
    for case in cases:
        domains.setdefault(case.providers, f"domain-{len(domains)}.example")
    data = {
        domain: {provider.name: provider.document() for provider in providers} for providers, domain in domains.items()
    }
    asked = [
        {
            "raw": case.raw,
            "beside": [] if case.beside is None else [case.beside],
            "domain": domains[case.providers],
            "now_ns": round(case.moment * 1_000_000) * 1000,
        }
        for case in cases
    ]
    (folder / "data.json").write_text(json.dumps({"zerotrust_data": {"policy": {"providers": data}}}))
    (folder / "input.json").write_text(json.dumps(asked))
    (folder / "vectors.rego").write_text(
        "package vectors\nimport data.zerotrust.authz.tokens\n"
        f"default answer(_) := null\nanswer(one) := tokens.{rule}\n"
        "answers := [answer(one) | some one in input]\n"
    )
    command = [find_or_build(tool), "eval", "--format", "json", "--input", folder / "input.json"]
    for file in (RULES, folder / "data.json", folder / "vectors.rego"):
        command += ["--data", file]
    ran = subprocess.run([*command, "data.vectors.answers"], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    answers: list[Answer] = json.loads(ran.stdout)["result"][0]["expressions"][0]["value"]
    assert len(answers) == len(cases)
    return answers


def python_answer(case: Case) -> Answer:
    """What the Python verifier makes of it, in the words of the Rego rules."""
    try:
        verified = verify(case.raw, case.providers, datetime.fromtimestamp(case.moment, UTC), case.beside)
    except TokenRefused:
        return None
    return in_words(verified)


def in_words(verified: Token) -> dict[str, Any]:
    return {
        "provider": verified.provider,
        "audiences": sorted(verified.audiences),
        "claims": {name: list(values) for name, values in verified.claims.items()},
        "scopes": sorted(verified.scopes),
    }
