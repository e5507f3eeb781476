"""Reading plans: what a test wants to know of one, in its own words."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.certificates import key_pem
from zerotrust.common.plan import Plan
from zerotrust.pki.keys import PrivateKey


def conditions(plan: Plan) -> dict[str, tuple[str, str]]:
    """Status and reason of every condition, by type."""
    return {one["type"]: (one["status"], one["reason"]) for one in _conditions(plan)}


def message(plan: Plan, type_: str = "Ready") -> str:
    """What a condition tells people."""
    return str(next(one["message"] for one in _conditions(plan) if one["type"] == type_))


def _conditions(plan: Plan) -> list[dict[str, Any]]:
    assert plan.status is not None, "the plan leaves the status as it is"
    return list(plan.status["conditions"])


def ready(plan: Plan) -> tuple[str, str]:
    """Status and reason of Ready."""
    return conditions(plan)["Ready"]


def events(plan: Plan) -> list[tuple[str, str]]:
    """Type and reason of each event."""
    return [(event.type, event.reason) for event in plan.events]


def has_issued(plan: Plan) -> bool:
    return any(outcome.metric == "issued" for outcome in plan.outcomes)


def issue_reason(plan: Plan) -> str:
    """Why a certificate was issued; empty when none was."""
    return next((outcome.label for outcome in plan.outcomes if outcome.metric == "issued"), "")


def manifest(plan: Plan, name: str = "") -> Mapping[str, Any]:
    """The plan's one Apply, or the one of that name."""
    (found,) = (apply.manifest for apply in plan.applies if not name or apply.ref.name == name)
    return found


def value(plan: Plan, key: str, name: str = "") -> bytes:
    """One decoded value of the Secret in the plan's Apply."""
    return base64.b64decode(manifest(plan, name)["data"][key])


def certificates(plan: Plan, key: str = "tls.crt") -> list[x509.Certificate]:
    """The certificates in one value of the Secret, leaf first."""
    return x509.load_pem_x509_certificates(value(plan, key))


def leaf(plan: Plan) -> x509.Certificate:
    return certificates(plan)[0]


def shows_key(text: str, key: PrivateKey) -> bool:
    """Tell whether the text gives a private key away: in PEM, base64 of it, hex, as bytes, or as its secret number."""
    numbers = key.private_numbers()
    number = numbers.d if isinstance(numbers, rsa.RSAPrivateNumbers) else numbers.private_value
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # Everything before the secret number is public: the algorithm, and of an RSA key the modulus.
    start = der.index(number.to_bytes((number.bit_length() + 7) // 8)) + 2
    start += -start % 3  # where a group of base64 begins
    secret, lines = der[start : start + 18], key_pem(key).splitlines()
    written = b"".join(line for line in lines if not line.startswith(b"-----"))[start * 4 // 3 :][:24]
    twice = base64.b64encode(key_pem(key))
    forms = [str(number), secret.hex(), repr(secret)[2:-1], written.decode()]
    flat = _flat(text)
    return any(_flat(form) in flat for form in forms) or "PRIVATE KEY" in text or twice.decode()[80:160] in text


def _flat(text: str) -> str:
    """The text without what depends on where it stands: line breaks, and whether a quotation mark is escaped."""
    return text.replace("\\n", "").replace("\n", "").replace("\\'", "'")


def everything_visible(plan: Plan) -> str:
    """All of a plan but the values of Secrets: what ends up where people without access to Secrets can read it."""
    shown = [
        {**apply.manifest, "data": sorted(apply.manifest.get("data", {}))}
        for apply in plan.applies
        if apply.manifest["kind"] == "Secret"
    ]
    others = [apply.manifest for apply in plan.applies if apply.manifest["kind"] != "Secret"]
    told = [plan.status, [repr(event) for event in plan.events], repr(plan.outcomes), repr(plan.deletes)]
    return json.dumps([shown, others, told, repr(plan.refresh)], default=str)
