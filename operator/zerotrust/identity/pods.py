"""Whether a workload's pods are the ones that its labels select: NetworkPolicies go by labels, identities by ServiceAccount."""

from dataclasses import dataclass

from zerotrust.common.conditions import Condition, false, some, true, unknown


@dataclass(frozen=True, slots=True)
class PodMatch:
    """The running pods of an identity.

    `right` counts those that are selected and run under its ServiceAccount, `foreign` are selected and run under another:
    `(pod, ServiceAccount)`, `unlabelled` run under it and are not selected, `on_host` run under it in their node's network. All
    are sorted.
    """

    right: int = 0
    foreign: tuple[tuple[str, str], ...] = ()
    unlabelled: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether there are pods, and labels tell exactly which they are."""
        return self.right > 0 and not self.foreign and not self.unlabelled


def condition(match: PodMatch | None) -> Condition:
    """Return the condition PodsMatch; no number in it changes when a healthy workload is scaled."""
    kind = "PodsMatch"
    if match is None:
        return unknown(kind, "NotWatched", "pods are not watched: the controller runs with --no-watch-pods")
    if match.foreign:
        named = [f"{pod} (ServiceAccount {account})" for pod, account in match.foreign]
        text = f"carry its labels and run under another ServiceAccount: {some(named, ', ')}; what may reach it may reach them"
        return false(kind, "ForeignPods", f"{len(named)} pods {text}")
    if match.unlabelled:
        text = f"run under its ServiceAccount without its labels: {some(match.unlabelled, ', ')}; no NetworkPolicy of it applies"
        return false(
            kind, "UnlabelledPods", f"{len(match.unlabelled)} pods {text} to them: label them, or restart them"
        )
    if match.on_host:
        text = f"use their node's network: {some(match.on_host, ', ')}; no NetworkPolicy applies to them"
        return false(kind, "HostNetworkPods", f"{len(match.on_host)} pods {text}")
    if not match.right:
        return unknown(kind, "NoPods", "no pod runs under its ServiceAccount")
    return true(kind, "Matching", "every pod of its ServiceAccount carries its labels, and no other pod does")
