"""From what is in a cluster today to ServiceIdentities and TrustPolicies: nothing is opened, and what is not said is told.

What the old NetworkPolicies allowed is the upper bound: the new objects, beside those NetworkPolicies of which something is left
over, allow no connection between pods that was not allowed before.
"""

from collections.abc import Iterable

from zerotrust.common.naming import Ref
from zerotrust.importing.certificates import Certificates
from zerotrust.importing.domain import read_domain
from zerotrust.importing.drafts import Drafts
from zerotrust.importing.incoming import Incoming
from zerotrust.importing.objects import World
from zerotrust.importing.original import OldPolicy, Original, read_policies
from zerotrust.importing.outgoing import Outgoing
from zerotrust.importing.report import Outcome, Report
from zerotrust.importing.whole_namespaces import WholeNamespaces


def translate(
    world: World,
    *,
    trust_domain: str | None = None,
    operator_namespace: str = "zerotrust-system",
    keep_secret_names: bool = False,
) -> Outcome:
    """Return what to apply, what is left over, and what is replaced; SpecError names a field that cannot be read."""
    report, drafts = Report(), Drafts(world)
    domain = read_domain(world, trust_domain, operator_namespace)
    policies = read_policies(world)
    original = Original(world, policies)

    Certificates(world, drafts, domain, report, keep_secret_names).translate()
    outgoing = Outgoing(world, original, drafts, domain, report)
    outgoing.decide(policies)
    whole = WholeNamespaces(world, domain, policies, report)
    whole.propose()
    unnamed = drafts.closed_by_hand(domain.closes_egress)
    incoming = Incoming(world, original, drafts, frozenset(outgoing.closed), unnamed, report)
    made = incoming.translate(policies)
    outgoing.write(incoming.named)
    whole.judge()
    _judge_labels(original, report)
    outgoing.judge()

    for draft in drafts.by_owner.values():
        if domain.must_be_named:
            draft.spec["trustDomain"] = domain.name
        if domain.given and domain.spec.identities.enforcement == "Observe":
            draft.spec["enforcement"] = "Enforce"
    replacing = {owner: [policy.ref for policy in its] for owner, its in outgoing.closed.items()}
    made += drafts.made(report, replacing)
    if made and not domain.given:
        made.append(domain.made())
    _note_accounts(world, drafts, report)
    return Outcome.of(made, report, _old(world, policies))


def _judge_labels(original: Original, report: Report) -> None:
    """A pod that runs without the label is closed by its old NetworkPolicies only."""
    for pod in original.world.pods:
        if pod.unlabelled:
            for policy in {
                one.ref: one for kind in ("Ingress", "Egress") for one in original.isolating(kind, pod)
            }.values():
                why = f"pods of ServiceAccount {pod.owner} run without the label zerotrust.dev/service-account"
                instead = "install manifests/admission, label or restart them (docs/guides/pod-labels.md), import again"
                report.leave(policy.ref, "spec.podSelector", why, instead, opens=True)


def _note_accounts(world: World, drafts: Drafts, report: Report) -> None:
    for owner, draft in drafts.by_owner.items():
        if owner not in world.accounts and owner.name != "default":
            report.note(draft.ref, "spec.serviceAccountName", f"ServiceAccount {owner} was not read: it must exist")


def _old(world: World, policies: Iterable[OldPolicy]) -> list[Ref]:
    return [*(policy.ref for policy in policies), *(ref for _, ref, _ in world.others.get("Certificate", ()))]
