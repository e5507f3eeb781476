"""The summary of violations: the newest three, and the same ones always say the same."""

from datetime import timedelta

from tests.support.certificates import NOW
from zerotrust.common import times
from zerotrust.common.status import Finding, news_of_violations, violations_of

OLD = [Finding(f"Pod old-{number}", "hostNetwork") for number in range(5)]


def later(seconds: int, name: str) -> Finding:
    return Finding(f"Pod {name}", "hostNetwork", NOW + timedelta(seconds=seconds))


def named(status: dict[str, object]) -> list[str]:
    examples = status["examples"]
    assert isinstance(examples, list)
    return [one["object"].removeprefix("Pod ") for one in examples]


def test_the_newest_three_are_told_newest_first() -> None:
    found = violations_of([*OLD, later(1, "a"), later(3, "c"), later(2, "b"), later(0, "z")], None)
    assert found["total"] == 9
    assert named(found) == ["c", "b", "a"]
    assert found["examples"][0]["foundAt"] == times.render(NOW + timedelta(seconds=3))


def test_a_new_one_pushes_out_the_oldest() -> None:
    before = violations_of([*OLD, later(1, "a"), later(2, "b")], None)
    after = violations_of([*OLD, later(1, "a"), later(2, "b"), later(9, "c")], before)
    assert named(after) == ["c", "b", "a"]
    assert [event.message for event in news_of_violations(before, after)] == ["Pod c: hostNetwork"]


def test_a_restart_forgets_the_times_and_tells_the_same() -> None:
    before = violations_of([*OLD, later(1, "a"), later(2, "b")], violations_of(OLD, None))
    forgotten = [one._replace(since=None) for one in (*OLD, later(1, "a"), later(2, "b"))]
    assert violations_of(forgotten, before) == before
    assert violations_of(reversed(OLD), violations_of(OLD, None)) == violations_of(OLD, None)


def test_nobody_is_told_a_time_that_nobody_knows() -> None:
    assert all("foundAt" not in one for one in violations_of(OLD, None)["examples"])
