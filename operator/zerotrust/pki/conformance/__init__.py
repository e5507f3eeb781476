"""The SPIFFE rules for an X.509-SVID, its chain and its trust bundle, one small function each.

The table `RULES` names every rule by its number in the project's rule list (S: SPIFFE-ID, X: X509-SVID, B: bundle) with
the section that states it; K1 and I2 are ours. Nothing here imports the code that issues certificates: the judge
shares no mistake with the judged.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from zerotrust.pki.conformance import bundle as bundle_rules
from zerotrust.pki.conformance import certificate as certificate_rules
from zerotrust.pki.conformance import path as path_rules
from zerotrust.pki.conformance import spiffe_id as id_rules
from zerotrust.pki.conformance.bundle import UnusableBundle, x509_authorities
from zerotrust.pki.conformance.reading import (
    MAX_BUNDLE,
    MAX_CHAIN,
    UnreadableInput,
    check_readable,
    check_size,
    read_certificates,
    read_private_key,
)
from zerotrust.pki.conformance.rule import Evidence, Outcome, Result, Rule, is_authority, judge, quote, uri_names
from zerotrust.pki.conformance.spiffe_id import is_spiffe_id, is_trust_domain

__all__ = [
    "RULES",
    "Outcome",
    "Result",
    "Rule",
    "UnreadableInput",
    "UnusableBundle",
    "check_svid",
    "is_authority",
    "is_spiffe_id",
    "passes",
    "quote",
    "read_certificates",
    "read_private_key",
    "uri_names",
    "x509_authorities",
]

_ORDER = "SXBKI"


def _position(rule: Rule) -> tuple[int, int]:
    return _ORDER.index(rule.id[0]), int(re.sub(r"\D", "", rule.id))


RULES: tuple[Rule, ...] = tuple(
    sorted((*id_rules.RULES, *certificate_rules.RULES, *path_rules.RULES, *bundle_rules.RULES), key=_position)
)


def check_svid(
    chain: Sequence[x509.Certificate],
    bundle: Sequence[x509.Certificate],
    at: datetime,
    *,
    trust_domain: str | None = None,
    spiffe_bundle: bytes | None = None,
    private_key: PrivateKeyTypes | None = None,
) -> list[Result]:
    """Judge an SVID by every rule of `RULES`, in their order.

    `chain` is leaf first, `bundle` the authorities that are trusted, `at` (aware) the time to judge at. Optional are
    the name of the trust domain that the bundle is for, its `bundle.spiffe.json`, and the leaf's private key; the rules
    that need a missing one are not applicable. Raises UnreadableInput when there is nothing that could be judged.
    """
    if at.tzinfo is None:
        raise UnreadableInput("time", "has no time zone; give an aware time")
    if trust_domain is not None and not is_trust_domain(trust_domain):
        raise UnreadableInput("trust domain", f"{quote(trust_domain)} is none; give a name such as example.org")
    if not chain:
        raise UnreadableInput("chain", "holds no certificate; give the leaf, then its intermediates")
    for source, certificates, most in (("chain", chain, MAX_CHAIN), ("bundle", bundle, MAX_BUNDLE)):
        if len(certificates) > most:
            raise UnreadableInput(source, f"holds {len(certificates)} certificates; at most {most} are judged")
        for position, certificate in enumerate(certificates, start=1):
            check_readable(f"{source} certificate {position}", certificate)
    if spiffe_bundle is not None:
        check_size("SPIFFE bundle", spiffe_bundle)
    evidence = Evidence(tuple(chain), tuple(bundle), at, trust_domain, spiffe_bundle, private_key)
    return [judge(rule, evidence) for rule in RULES]


def passes(results: Sequence[Result]) -> bool:
    """Tell whether no rule failed."""
    return all(result.outcome is not Outcome.FAIL for result in results)
