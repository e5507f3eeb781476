"""What identities, policies and API keys ask of admission, as entries of constraints' parameters.

An entry is about one ServiceAccount, Secret or Service, so what one identity or policy asks can be found again in the cluster's
constraints by itself, whatever else stands in them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from zerotrust.gatekeeper import templates
from zerotrust.gatekeeper.templates import BINDING, CREDENTIALS, HOST_ACCESS, IMAGES, LABELS, SERVICES
from zerotrust.policy.directory import default_selector
from zerotrust.policy.podset import Selector
from zerotrust.policy.resource import Admission

Action = Literal["deny", "warn", "dryrun"]


class Place(NamedTuple):
    """Where an entry stands: in the constraints of a kind and an action, under a key of their map."""

    kind: str
    action: Action
    key: str


Entry = Mapping[str, Any]
Entries = dict[Place, Entry]


class Demand(NamedTuple):
    """What a TrustPolicy asks of its target's pods; `enforced` is False for one that only observes."""

    policy: str
    enforced: bool
    admission: Admission


@dataclass(frozen=True)
class Subject:
    """A ServiceIdentity as admission sees it.

    `pods` select its pods; `labelled` says that every pod of its ServiceAccount was found to be selected, so that a new one must
    be too. `secret` is None where somebody else's Secret has the name, which is not ours to guard. `services` are the names of
    Services that its certificate speaks for.
    """

    name: str
    account: str
    pods: Selector
    enforced: bool
    secret: str | None
    labelled: bool = False
    services: frozenset[str] = frozenset()
    demands: tuple[Demand, ...] = ()

    @property
    def derived(self) -> bool:
        """Whether its pods are told by the label that admission policies derive from the ServiceAccount."""
        return self.pods == default_selector(self.account)


class KeySecret(NamedTuple):
    """The Secret of an ApiKey, and the ServiceAccounts of its namespace that may use it: none for a holder outside."""

    name: str
    secret: str
    accounts: tuple[str, ...]


def of_subject(subject: Subject) -> Entries:
    """Return the entries of an identity and of the policies that target it."""
    action: Action = "deny" if subject.enforced else "dryrun"
    selector = _requirements(subject.pods)
    who: dict[str, Any] = {"identity": subject.name, "derived": subject.derived}
    if not subject.derived:
        who["selector"] = selector
    labels: Action = "warn" if subject.enforced and not subject.labelled else action
    owner = {"owner": f"ServiceIdentity {subject.name}", "serviceAccounts": [subject.account]}
    found: Entries = {
        Place(BINDING, action, subject.account): who,
        Place(LABELS, labels, subject.account): who,
    }
    if subject.secret is not None:
        found[Place(CREDENTIALS, action, subject.secret)] = owner
    for service in subject.services:
        entry = {"identity": subject.name, "selector": selector}
        found[Place(SERVICES, action, service)] = entry
        if subject.enforced:
            found[Place(SERVICES, "warn", service)] = entry
    for enforced in (True, False):
        demands = [one for one in subject.demands if (one.enforced and subject.enforced) == enforced]
        found |= _demanded(subject.account, "deny" if enforced else "dryrun", demands)
    return found


def says(kind: str, present: Entry, asked: Entry) -> bool:
    """Tell whether an entry in the cluster says what is asked; several policies can ask something of one ServiceAccount."""
    match kind:
        case templates.HOST_ACCESS:
            return set(asked["policies"].split(", ")) <= set(str(present.get("policies")).split(", "))
        case templates.IMAGES:
            return all(rule in (present.get("rules") or ()) for rule in asked["rules"])
        case _:
            return present == asked


def of_key(key: KeySecret) -> Entries:
    """Return the entries of an ApiKey."""
    return {
        Place(CREDENTIALS, "deny", key.secret): {
            "owner": f"ApiKey {key.name}",
            "serviceAccounts": sorted(key.accounts),
        }
    }


def merged(parts: Iterable[Entries]) -> Entries:
    """Join entries; where two claim the same place the first stays, and the other says so in its own status."""
    found: Entries = {}
    for part in parts:
        for place, entry in part.items():
            found.setdefault(place, entry)
    return found


def _demanded(account: str, action: Action, demands: list[Demand]) -> Entries:
    found: Entries = {}
    hosts = sorted(one.policy for one in demands if one.admission.deny_host_network)
    if hosts:
        found[Place(HOST_ACCESS, action, account)] = {"policies": ", ".join(hosts)}
    rules = list(_image_rules(sorted(demands, key=lambda one: one.policy)))
    if rules:
        found[Place(IMAGES, action, account)] = {"rules": rules}
    return found


def _image_rules(demands: list[Demand]) -> Iterator[dict[str, Any]]:
    for policy, _, admission in demands:
        rule: dict[str, Any] = {"policy": policy, "digest": admission.require_digest}
        if admission.allowed_registries is not None:
            rule["registries"] = list(admission.allowed_registries)
        if admission.require_digest or "registries" in rule:
            yield rule


def _requirements(selector: Selector) -> list[dict[str, Any]]:
    return [
        {"key": one.key, "operator": one.operator, **({"values": list(one.values)} if one.values else {})}
        for one in selector
    ]
