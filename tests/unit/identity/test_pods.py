"""The condition PodsMatch."""

import pytest

from zerotrust.identity.pods import PodMatch, condition


@pytest.mark.parametrize(
    ("match", "status", "reason", "words"),
    [
        (None, "Unknown", "NotWatched", "--no-watch-pods"),
        (PodMatch(), "Unknown", "NoPods", "no pod runs"),
        (PodMatch(3), "True", "Matching", "every pod"),
        (PodMatch(3, (("spy", "batch"),)), "False", "ForeignPods", "spy (ServiceAccount batch)"),
        (PodMatch(0, (("spy", "batch"),)), "False", "ForeignPods", "1 pods"),
        (PodMatch(3, (), ("a", "b", "c", "d", "e")), "False", "UnlabelledPods", "a, b, c (and 2 more)"),
        (PodMatch(3, (("spy", "batch"),), ("a",)), "False", "ForeignPods", "spy"),
        (PodMatch(3, (), (), ("a", "b")), "False", "HostNetworkPods", "2 pods use their node's network: a, b"),
        (PodMatch(3, (), ("a",), ("a",)), "False", "UnlabelledPods", "a"),
    ],
    ids=["not-watched", "none", "right", "foreign", "foreign-only", "unlabelled", "both", "host", "unlabelled-on-host"],
)
def test_it_says_who_is_wrong(match: PodMatch | None, status: str, reason: str, words: str) -> None:
    found = condition(match)
    assert (found.status, found.reason) == (status, reason)
    assert words in found.message


def test_scaling_a_healthy_workload_is_no_news() -> None:
    assert condition(PodMatch(3)) == condition(PodMatch(300))


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (PodMatch(), False),
        (PodMatch(1), True),
        (PodMatch(1, (("spy", "batch"),)), False),
        (PodMatch(1, (), ("a",)), False),
        (PodMatch(1, (), (), ("a",)), True),
    ],
    ids=["none", "right", "foreign", "unlabelled", "host"],
)
def test_labels_are_demanded_only_where_all_pods_have_them(match: PodMatch, holds: bool) -> None:
    assert match.holds is holds
