"""Asking the conformance rules about a test's SVID."""

from datetime import datetime
from typing import Any

from tests.support.certificates import NOW, TRUST_DOMAIN, Svid
from zerotrust.pki.conformance import Outcome, Result, check_svid


def judge(svid: Svid, at: datetime = NOW, **inputs: Any) -> dict[str, Result]:
    """Every rule's result by its number; the optional inputs are all given unless the test says otherwise."""
    given = {"trust_domain": TRUST_DOMAIN, "spiffe_bundle": svid.spiffe_bundle, "private_key": svid.key, **inputs}
    return {result.rule.id: result for result in check_svid(svid.chain, svid.bundle, at, **given)}


def failures(svid: Svid, at: datetime = NOW, **inputs: Any) -> set[str]:
    """The numbers of the rules that fail."""
    return {number for number, result in judge(svid, at, **inputs).items() if result.outcome is Outcome.FAIL}
