"""`zerotrust render`: what the controller would make of some manifests, computed here, without a cluster.

The same controllers run over an in-memory cache until nothing is left to do; private keys are made and thrown away.
"""

import base64
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import yaml

from zerotrust.cli.manifests import Loader
from zerotrust.common import naming, times
from zerotrust.common.conditions import find
from zerotrust.common.errors import SpecError, ZerotrustError
from zerotrust.common.merge import without_nulls
from zerotrust.common.naming import Ref
from zerotrust.common.observed import CustomResource
from zerotrust.common.plan import Plan
from zerotrust.engine.cache import Cache
from zerotrust.engine.controller import Controller
from zerotrust.engine.identities import IdentityController
from zerotrust.engine.trustdomains import TrustBundleController, TrustDomainController, TrustDomains
from zerotrust.identity.snapshot import service_account
from zerotrust.kube.observe import Observer
from zerotrust.pki.secret import PRIVATE_KEY
from zerotrust.trustdomain.authority import KeyRing, SystemEntropy

KINDS = ("TrustDomain", "ServiceIdentity", "Namespace", "ServiceAccount")
WITHHELD = "(made by the controller and never printed)"
ROUNDS = 5

Body = dict[str, Any]


class UnreadableManifest(ZerotrustError):
    """A file is no manifest that can be rendered; the message names the file."""


class Offline:
    """The controllers over a cache that no cluster fills."""

    def __init__(self, operator_namespace: str, now: datetime) -> None:
        self.cache = Cache()
        self.made: dict[Ref, Body] = {}
        self._now, self._version = now, 0
        self._bodies: dict[Ref, Body] = {}
        self._observe = Observer(operator_namespace, ring := KeyRing())
        domains = TrustDomains(self.cache, operator_namespace)
        entropy = SystemEntropy()
        self._controllers: tuple[tuple[str, Controller], ...] = (
            ("TrustDomain", TrustDomainController(self.cache, domains, entropy, lambda: None)),
            ("ServiceIdentity", IdentityController(self.cache, domains, ring, entropy)),
        )
        self._bundles = TrustBundleController(self.cache, domains)

    def put(self, body: Mapping[str, Any]) -> None:
        """Take an object in as the API server would show it."""
        self._version += 1
        metadata = {"uid": str(uuid4()), "generation": 1, **body["metadata"]}
        metadata |= {"resourceVersion": str(self._version), "creationTimestamp": times.render(self._now)}
        full = {**body, "metadata": metadata}
        observed = self._observe(body["kind"], full)
        self._bodies[observed.meta.ref] = full
        self.cache.put(observed)

    def assume(self) -> None:
        """Add the namespaces and ServiceAccounts that the manifests take for granted."""
        identities = list(self.cache.of_kind("ServiceIdentity"))
        for identity in identities:
            account = Ref("ServiceAccount", identity.meta.namespace, service_account(identity))
            for ref in (Ref("Namespace", "", identity.meta.namespace), account):
                if self.cache.get(ref) is None:
                    metadata = {"name": ref.name, **({"namespace": ref.namespace} if ref.namespace else {})}
                    self.put({"apiVersion": "v1", "kind": ref.kind, "metadata": metadata})

    def run(self) -> None:
        """Reconcile until nothing changes; a chain of dependencies is as long as there are controllers."""
        for _ in range(ROUNDS):
            before = self._version
            for kind, controller in self._controllers:
                for ref in self.cache.refs(kind):
                    self._carry_out(ref, controller.reconcile(controller.snapshot(ref), self._now))
            for domain in self.cache.refs("TrustDomain"):
                for namespace in self.cache.refs("Namespace"):
                    snapshot = self._bundles.snapshot(Ref("TrustBundle", namespace.name, domain.name))
                    if snapshot is not None:
                        self._carry_out(domain, self._bundles.reconcile(snapshot, self._now), children_only=True)
            if self._version == before:
                return

    def _carry_out(self, subject: Ref, plan: Plan, *, children_only: bool = False) -> None:
        for apply in plan.applies:
            if self.cache.get(apply.ref) is None:
                self.made[apply.ref] = without_nulls(apply.manifest)
                self.put(self.made[apply.ref])
        if plan.status is not None and not children_only:
            body = self._bodies[subject]
            if body.get("status") != plan.status:
                self.put({**body, "status": plan.status})

    def resources(self) -> list[CustomResource[Any]]:
        """Our own resources, with the status they would get."""
        return [one for kind, _ in self._controllers for one in self.cache.of_kind(kind)]


def printable(manifest: Mapping[str, Any]) -> Body:
    """Return a manifest fit for a terminal: a Secret's values in clear text, private keys withheld."""
    if manifest["kind"] != "Secret":
        return dict(manifest)
    data = {
        key: WITHHELD if key == PRIVATE_KEY else base64.b64decode(value).decode(errors="replace")
        for key, value in manifest["data"].items()
    }
    return {**{key: value for key, value in manifest.items() if key != "data"}, "stringData": data}


def documents(name: str, text: str) -> Iterable[Body]:
    """Yield the manifests of a YAML text; those of kinds that do not matter here are passed over."""
    try:
        found = list(yaml.load_all(text, Loader=Loader))
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" line {place.line + 1}" if place else ""
        raise UnreadableManifest(f"{name}:{where} is no YAML") from None
    for document in found:
        items = (
            document.get("items", []) if isinstance(document, dict) and document.get("kind") == "List" else [document]
        )
        for body in items:
            if body is None:
                continue
            metadata = body.get("metadata") if isinstance(body, dict) else None
            if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or "kind" not in body:
                raise UnreadableManifest(f"{name}: every document needs kind and metadata.name")
            if body["kind"] in KINDS:
                yield body


def _check_version(path: str, body: Body) -> None:
    wanted = "v1" if body["kind"] in ("Namespace", "ServiceAccount") else naming.API_VERSION
    if body.get("apiVersion") != wanted:
        raise UnreadableManifest(f"{path}: {body['kind']} {body['metadata']['name']}: apiVersion must be {wanted}")


def _read(path: str) -> Iterable[Body]:
    if path == "-":
        yield from documents("standard input", sys.stdin.read())
        return
    place = Path(path)
    files = sorted(file for file in place.iterdir() if file.suffix in (".yaml", ".yml")) if place.is_dir() else [place]
    for file in files:
        try:
            yield from documents(str(file), file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableManifest(f"{file}: {type(error).__name__}") from None


class _Plain(yaml.SafeDumper):
    """Writes texts of several lines as blocks, which is how people read certificates."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _block)


@click.command()
@click.option(
    "-f", "--filename", "files", multiple=True, required=True, metavar="FILE", help="Manifests: file, folder or -."
)
@click.option("--namespace", envvar="ZEROTRUST_NAMESPACE", default="zerotrust-system", help="The operator's namespace.")
@click.option("--default-namespace", default="default", help="For manifests that name no namespace.")
@click.pass_context
def render(context: click.Context, files: tuple[str, ...], namespace: str, default_namespace: str) -> None:
    """Print the objects that the controller would make of TrustDomains and ServiceIdentities, without a cluster.

    Namespaces and ServiceAccounts that the files do not hold are taken for granted. Exits with 1 when a resource would
    not become Ready, and says why on standard error; with 2 when a file cannot be read.
    """
    offline = Offline(namespace, datetime.now(UTC))
    try:
        for path in files:
            for body in _read(path):
                if body["kind"] not in ("TrustDomain", "Namespace"):
                    body["metadata"].setdefault("namespace", default_namespace)
                _check_version(path, body)
                offline.put(body)
    except UnreadableManifest as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(2)
    offline.assume()
    offline.run()
    for _, manifest in sorted(offline.made.items()):
        click.echo("---")
        click.echo(yaml.dump(printable(manifest), Dumper=_Plain, sort_keys=False, width=120), nl=False)
    context.exit(1 if _complain(offline.resources()) else 0)


def _complain(resources: list[CustomResource[Any]]) -> bool:
    """Say on standard error what would not become Ready."""
    bad = False
    if not resources:
        click.echo("Error: there is no TrustDomain and no ServiceIdentity in these files", err=True)
        return True
    for resource in resources:
        ready = find(resource.conditions, "Ready")
        if ready is None or ready["status"] != "True":
            reason = (
                str(resource.spec)
                if isinstance(resource.spec, SpecError)
                else (ready or {}).get("message", "is not ready")
            )
            click.echo(f"{resource.meta.ref}: {reason}", err=True)
            bad = True
    return bad
