"""What a process announces, and that it announces everything that it shows."""

from collections.abc import Iterable

import pytest

from zerotrust.telemetry.metrics import Family, Metrics, Sample


def shown(metrics: Metrics) -> dict[str, tuple[str, str]]:
    """Name, type and help of every family that a scrape shows."""
    return {family.name: (family.type, family.documentation) for family in metrics.registry.collect()}


def test_everything_that_is_shown_is_announced() -> None:
    metrics = Metrics()
    metrics.gauge("answer", "A number.", lambda: 42)
    metrics.watch("things", "Numbers by colour.", ["colour"], lambda: [(("red",), 1.0)])
    announced = {one.name: (one.type, one.description) for one in metrics.families}
    assert shown(metrics) == announced
    assert Family("zerotrust_things", "gauge", ("colour",), "Numbers by colour.") in metrics.families
    assert metrics.registry.get_sample_value("zerotrust_answer") == 42
    assert metrics.registry.get_sample_value("zerotrust_things", {"colour": "red"}) == 1


@pytest.mark.parametrize("name", ["issued", "things"])
def test_no_name_is_announced_twice(name: str) -> None:
    metrics = Metrics()
    metrics.gauge("things", "A number.")

    def none() -> Iterable[Sample]:
        return []

    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics.watch(name, "Another.", [], none)
    assert len({one.name for one in metrics.families}) == len(shown(metrics))
