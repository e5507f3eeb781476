"""Asking the pure core what it would do."""

from datetime import datetime
from typing import Any

from tests.support.builders import NOW, Body, FixedEntropy, Identity, a_key_ring, an_identity, an_identity_snapshot
from tests.support.plans import manifest
from zerotrust.common.plan import Plan
from zerotrust.engine.difference import difference, owned_fields
from zerotrust.identity.reconcile import reconcile
from zerotrust.identity.snapshot import IdentitySnapshot
from zerotrust.pki.secret import ObservedSecret
from zerotrust.trustdomain.authority import Signer


def decide(
    snapshot: IdentitySnapshot | None = None,
    now: datetime = NOW,
    *,
    signer: Signer | None = None,
    entropy: FixedEntropy | None = None,
    **parts: Any,
) -> Plan:
    """Reconcile a snapshot of an identity, or one made of these parts."""
    snapshot = snapshot or an_identity_snapshot(**parts)
    return reconcile(snapshot, now, signer or a_key_ring(), entropy or FixedEntropy(7))


def asked(**certificate: Any) -> Identity:
    """An identity whose certificate is asked for in this way."""
    return an_identity(certificate=certificate)


def changes(observed: ObservedSecret, plan: Plan) -> Body:
    """What the executor would write to the Secret for this plan."""
    return difference(owned_fields(observed), manifest(plan))
