"""A running controller is scraped while an identity cannot be renewed, and the alerts are asked what they make of it."""

import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.deployment import OPERATOR_NAMESPACE, Running, deployed
from tests.support.monitoring import promtool, rule_file, samples
from tests.support.proving import only_in_prove
from zerotrust.common import naming, times

pytestmark = pytest.mark.cluster

STEP = 2  # seconds between scrapes
GAUGES = ("zerotrust_identity_certificates", "zerotrust_trust_domains", "zerotrust_leading")
Scrape = dict[str, float]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("monitoring")) as running:
        spec = {"default": True, "identities": {"duration": "1m"}}
        running.apply(
            {
                "apiVersion": naming.API_VERSION,
                "kind": "TrustDomain",
                "metadata": {"name": "example.org"},
                "spec": spec,
            },
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        )
        yield running


def page(running: Running) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def scrape(running: Running) -> Scrape:
    """Every sample by its name and labels, as Prometheus writes a series."""
    found = {}
    for family in text_string_to_metric_families(page(running)):
        for one in family.samples:
            labels = ",".join(f'{label}="{value}"' for label, value in sorted(one.labels.items()))
            found[f"{one.name}{{{labels}}}"] = one.value
    return found


def certificates(found: Scrape) -> dict[str, float]:
    states = ("missing", "valid", "overdue", "expiring", "expired")
    counts = {state: found[f'zerotrust_identity_certificates{{state="{state}"}}'] for state in states}
    return {state: count for state, count in counts.items() if count}


def identity(running: Running, name: str) -> None:
    place = {"name": name, "namespace": "shop"}
    running.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
        {"apiVersion": naming.API_VERSION, "kind": "ServiceIdentity", "metadata": place, "spec": {}},
    )
    running.until(lambda: running.conditions("svid", name, "shop").get("Ready", ("",))[0] == "True", "it is ready")


def not_after(running: Running, name: str) -> datetime:
    return times.parse(running.plane.kubectl("get", "svid", name, "-n", "shop", "-o", "jsonpath={.status.notAfter}"))


def test_a_scrape_shows_what_is_announced_and_nothing_else(running: Running) -> None:
    identity(running, "orders")
    found = running.until(
        lambda: certificates(now := scrape(running)) == {"valid": 1} and now, "its certificate is counted"
    )
    assert {name.partition("{")[0] for name in found} <= samples().keys()
    assert found["zerotrust_leading{}"] == found["zerotrust_caches_synced{}"] == 1
    end = found['zerotrust_authority_expiry_timestamp_seconds{trust_domain="example.org"}']
    life = found['zerotrust_authority_lifetime_seconds{trust_domain="example.org"}']
    assert 0 < end - time.time() <= life
    compared = found['zerotrust_cache_confirmed_timestamp_seconds{kind="Secret"}']
    assert 0 <= time.time() - compared < 600


@only_in_prove
def test_a_renewal_in_time_is_never_urgent(running: Running) -> None:
    identity(running, "payments")
    first, seen = not_after(running, "payments"), list[dict[str, float]]()
    while not_after(running, "payments") == first:
        seen.append(certificates(scrape(running)))
        assert datetime.now(UTC) < first, "it was not renewed"
        time.sleep(0.2)
    assert all(not {"expiring", "expired", "missing"} & states.keys() for states in seen)


@only_in_prove
def test_prometheus_finds_nothing_to_object_to_in_a_scrape(running: Running) -> None:
    assert not promtool("check", "metrics", text=page(running))


def test_an_authority_that_is_gone_shows_at_once(running: Running) -> None:
    label = f"{naming.COMPONENT}={naming.COMPONENT_AUTHORITY}"
    running.plane.kubectl("delete", "secrets", "-n", OPERATOR_NAMESPACE, "-l", label)
    gone = 'zerotrust_trust_domains{ready="False",reason="AuthorityMissing"}'
    running.until(lambda: scrape(running).get(gone) == 1, "the authority is missed")
    assert not {"missing", "expired"} & certificates(scrape(running)).keys()


@only_in_prove
def test_then_certificates_expire_and_alerts_fire(running: Running, tmp_path: Path) -> None:
    """Two and a half minutes of real scrapes, given to Prometheus's own rules as they were."""
    seen, series = list[dict[str, float]](), dict[str, list[float | None]]()
    started = time.monotonic()
    for number in range((60 + 60 + 20) // STEP):
        found = scrape(running)
        seen.append(certificates(found))
        for name, value in found.items():
            if name.startswith(GAUGES):
                series.setdefault(name, [None] * number).append(value)
        for values in series.values():
            values += [None] * (number + 1 - len(values))
        time.sleep(max(0.0, started + (number + 1) * STEP - time.monotonic()))
    states = dict.fromkeys(state for states in seen for state in states)
    assert [state for state in states if state != "valid"] == ["overdue", "expiring", "expired"]
    assert seen[-1].keys() == {"expired"}
    fired(series, len(seen), tmp_path)


def fired(series: dict[str, list[float | None]], number: int, folder: Path) -> None:
    """The certificates' alert fires over what was scraped, and says whose it is."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(rule_file(annotated=False)))
    alert = {"exp_labels": {"severity": "critical", "state": "expired", "namespace": OPERATOR_NAMESPACE}}
    test: dict[str, Any] = {
        "interval": f"{STEP}s",
        "input_series": [
            {"series": _placed(name), "values": " ".join("_" if one is None else f"{one:g}" for one in values)}
            for name, values in series.items()
        ],
        "alert_rule_test": [
            {"eval_time": "10s", "alertname": "ZerotrustCertificateExpired", "exp_alerts": []},
            {"eval_time": f"{(number - 1) * STEP}s", "alertname": "ZerotrustCertificateExpired", "exp_alerts": [alert]},
            {"eval_time": f"{(number - 1) * STEP}s", "alertname": "ZerotrustNoLeader", "exp_alerts": []},
        ],
    }
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": f"{STEP}s", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in promtool("test", "rules", folder / "test.yaml")


def _placed(name: str) -> str:
    """With the labels that a ServiceMonitor's target adds."""
    target = f'namespace="{OPERATOR_NAMESPACE}",pod="zerotrust-controller-0"'
    return f"{name[:-1]}{',' if name[-2] != '{' else ''}{target}}}"
