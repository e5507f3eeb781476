"""The reference of metrics: what each process announces, read from processes that are put together and never started."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

from kubernetes.aio.client import Configuration

from zerotrust.bundleserver.tls import AUTHORITIES, CERTIFICATE, KEY, TlsSecret
from zerotrust.cli.app import Controller, Options
from zerotrust.cli.serving import BundleServing, ServingOptions
from zerotrust.forwardauth.question import DIALECTS
from zerotrust.forwardauth.service import ForwardAuth, ForwardAuthOptions
from zerotrust.pki import keys
from zerotrust.pki import x509 as profiles
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.telemetry.metrics import Family

CONTROLLER, BUNDLE_SERVER, FORWARD_AUTH = "controller", "bundle server", "forward-auth"
INTRODUCTION = """\
# Metrics

<!-- Generated from the code by `make generate`; do not edit. -->

What `/metrics` shows. The [guide](../guides/monitoring.md) says what to make of it. No label names an object of yours, but for
trust domains, identity providers and, in decision counts, the names of workloads, which are bounded. Samples of a counter
end in `_total`, those of a histogram in `_bucket`, `_sum` and `_count`.
"""


def processes() -> dict[str, list[Family]]:
    """What each kind of process announces."""
    configuration = Configuration(host="https://localhost")
    serving = ServingOptions(TlsSecret(_svid))
    return {
        CONTROLLER: Controller(configuration, Options()).metrics.families,
        BUNDLE_SERVER: BundleServing(configuration, serving).metrics.families,
        FORWARD_AUTH: ForwardAuth(ForwardAuthOptions({}, DIALECTS["nginx"])).metrics.families,
    }


def page() -> str:
    """Return the Markdown reference: a table for each set of processes."""
    users: dict[str, list[str]] = defaultdict(list)
    families = {}
    for process, announced in processes().items():
        for family in announced:
            users[family.name].append(process)
            families[family.name] = family
    sections: dict[str, list[Family]] = defaultdict(list)
    for name in sorted(families):
        sections[", ".join(users[name])].append(families[name])
    return INTRODUCTION + "".join(_section(title, sections[title]) for title in sorted(sections, key=_order))


def _order(title: str) -> tuple[int, int]:
    """What more processes have comes first."""
    return -title.count(","), (CONTROLLER, BUNDLE_SERVER, FORWARD_AUTH).index(title.split(",")[0])


def _section(title: str, families: list[Family]) -> str:
    heading = "Every process" if title.count(",") == 2 else title[0].upper() + title[1:].replace(", ", " and ")
    lines = ["", f"## {heading}", "", "| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    lines += [f"| `{one.name}` | {one.type} | {_labels(one)} | {one.description} |" for one in families]
    return "\n".join(lines) + "\n"


def _labels(family: Family) -> str:
    return ", ".join(f"`{label}`" for label in family.labels)


def _svid() -> dict[str, bytes]:
    """A bundle server cannot be put together without one; this one is thrown away."""
    start = datetime.now(UTC).replace(microsecond=0)
    authority_key, key = keys.generate("ECDSA-P256"), keys.generate("ECDSA-P256")
    times = (start - timedelta(minutes=1), start + timedelta(hours=1))
    authority = profiles.self_signed_authority("example.org", authority_key, 1, *times)
    name = SpiffeID.of_service_account("example.org", "zerotrust-system", "zerotrust-bundle-server", "")
    leaf = profiles.sign_leaf(profiles.LeafProfile(name, key.public_key(), 2, *times), authority, authority_key)
    return {
        CERTIFICATE: profiles.write_pem(leaf),
        KEY: keys.to_pkcs8(key),
        AUTHORITIES: profiles.write_pem(authority),
    }
