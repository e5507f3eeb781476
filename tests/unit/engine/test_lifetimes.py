"""The numbers by which expiry is watched, counted from a real cache."""

from dataclasses import replace
from datetime import datetime

from tests.support.apikeys import START, a_spec
from tests.support.builders import (
    NAMESPACE,
    NOW,
    OPERATOR_NAMESPACE,
    TRUST_DOMAIN,
    a_record_secret,
    a_trust_domain,
    an_authority,
    an_identity,
    an_issued_body,
    days,
    hours,
)
from tests.support.clock import FakeClock
from zerotrust.apikey.key import Digest, KeyID
from zerotrust.apikey.memory import Key, Memory, encode
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import config_map, custom_resource
from zerotrust.engine.apikeybook import ApiKeyBook
from zerotrust.engine.cache import Cache
from zerotrust.engine.lifetimes import Lifetimes
from zerotrust.engine.trustdomains import TrustDomains
from zerotrust.pki import secret
from zerotrust.telemetry.metrics import Metrics


class Cluster:
    """A cache with one TrustDomain, and the metrics that are read out of it."""

    def __init__(self, now: datetime = NOW) -> None:
        self.cache, self.clock, self.metrics = Cache(), FakeClock(now), Metrics()
        domains = TrustDomains(self.cache, OPERATOR_NAMESPACE)
        book = ApiKeyBook(self.cache, OPERATOR_NAMESPACE, lambda _: None)
        self.lifetimes = Lifetimes(self.cache, domains, book, self.clock)
        self.lifetimes.announce(self.metrics)
        self.cache.put(a_trust_domain(default=True))

    def issue(self, name: str, **certificate: str) -> None:
        """An identity with a certificate of now."""
        identity = an_identity(name, certificate=certificate)
        self.cache.put(identity)
        self.cache.put(secret.observe(an_issued_body(identity, at=self.clock.now())))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"zerotrust_{name}", labels)

    def states(self, name: str = "identity_certificates") -> dict[str, float]:
        """The states that have any."""
        samples = [one for family in self.metrics.registry.collect() for one in family.samples]
        return {one.labels["state"]: one.value for one in samples if one.name == f"zerotrust_{name}" and one.value}


def test_every_identity_is_in_one_state_and_the_clock_alone_moves_it() -> None:
    cluster = Cluster()
    assert cluster.value("identity_certificates", state="expired") == 0
    cluster.cache.put(an_identity("new"))
    cluster.issue("long", duration="240h", renewBefore="80h")
    cluster.issue("short", duration="24h", renewBefore="8h")
    seen = []
    for _ in range(5):
        seen.append(cluster.states())
        cluster.clock.advance(hours(6.5))
    assert seen == [
        {"missing": 1, "valid": 2},
        {"missing": 1, "valid": 2},
        {"missing": 1, "valid": 2},
        {"missing": 1, "valid": 1, "overdue": 1},
        {"missing": 1, "valid": 1, "expired": 1},
    ]


def test_a_renewal_a_deletion_and_a_change_of_the_spec_are_seen() -> None:
    cluster = Cluster()
    cluster.issue("orders", duration="24h", renewBefore="8h")
    cluster.clock.advance(hours(17))
    assert cluster.states() == {"overdue": 1}
    relaxed = an_identity("orders", generation=2, certificate={"duration": "24h", "renewBefore": "2h"})
    cluster.cache.put(replace(relaxed, meta=replace(relaxed.meta, resource_version="2")))
    assert cluster.states() == {"valid": 1}
    cluster.cache.drop(Ref("Secret", NAMESPACE, "orders-svid"))
    assert cluster.states() == {"missing": 1}
    cluster.cache.drop(Ref("ServiceIdentity", NAMESPACE, "orders"))
    assert cluster.states() == {}


def test_somebody_elses_secret_is_no_certificate_of_the_identity() -> None:
    cluster = Cluster()
    cluster.issue("orders")
    cluster.cache.put(an_identity("other", secret={"name": "orders-svid"}))
    assert cluster.states() == {"valid": 1, "missing": 1}


def test_an_identity_whose_trust_domain_is_gone_still_counts() -> None:
    cluster = Cluster()
    cluster.issue("orders", duration="24h", renewBefore="8h")
    cluster.cache.drop(Ref("TrustDomain", "", TRUST_DOMAIN))
    cluster.clock.advance(hours(21))
    assert cluster.states() == {"expiring": 1}


def test_authorities_tell_their_end_and_how_long_they_live() -> None:
    cluster = Cluster()
    assert cluster.value("authority_expiry_timestamp_seconds", trust_domain=TRUST_DOMAIN) is None
    authority = an_authority()
    cluster.cache.put(a_record_secret())
    end = cluster.value("authority_expiry_timestamp_seconds", trust_domain=TRUST_DOMAIN)
    assert end == authority.not_after.timestamp()
    whole = (authority.not_after - authority.certificate.not_valid_before_utc).total_seconds()
    assert cluster.value("authority_lifetime_seconds", trust_domain=TRUST_DOMAIN) == whole


def test_api_keys_by_the_clock() -> None:
    cluster = Cluster(START)
    spec = a_spec()
    for name in ("partner", "nobody"):
        body = {
            "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "resourceVersion": "1"},
            "spec": {"holder": {"name": "Partner X"}, "audience": ["orders"]},
        }
        cluster.cache.put(custom_resource("ApiKey", ApiKeySpec, body))
    key = Key(KeyID("AAAAAAAAAAAA"), Digest("sha256:" + "0" * 64), START, START + days(30), START)
    labels = {naming.COMPONENT: naming.COMPONENT_API_KEYS}
    metadata = {"name": naming.api_keys_name("shop"), "namespace": OPERATOR_NAMESPACE, "labels": labels}
    cluster.cache.put(config_map({"metadata": metadata, "data": {"uid-partner": encode(Memory("partner", (key,)))}}))
    assert cluster.states("api_key_lifetimes") == {"valid": 1, "missing": 1}
    cluster.clock.advance(days(30))
    assert cluster.states("api_key_lifetimes") == {"expired": 1, "missing": 1}
    assert spec.max_key_age > days(30)
