"""Two bundle server processes: one at the API server, one behind a line that a test spoils, and what each of them serves."""

import asyncio
import base64
import contextlib
import json
import re
import ssl
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hack import kubeconfig
from hack.children import Child
from hack.gotools import find_or_build
from tests.support.decision_points import HOST, DecisionPoints, Replica
from tests.support.deployment import OPERATOR_NAMESPACE, Running
from tests.support.passage import LOOPBACK, Passage
from zerotrust.bundleserver.conditional import Tag
from zerotrust.common import naming
from zerotrust.opabundle import archive
from zerotrust.opabundle.configuration import CONFIG_MAP, OPA_FILE

RULE = re.compile(r"edit-(\d+)")


class Served(NamedTuple):
    """A policy bundle of namespace shop, verified: when it is from and until when it holds, in seconds since 1970."""

    serial: int
    revision: str
    issued_at: int
    not_after: int


class TwoReplicas:
    """`near` reaches the API server directly, `far` through `line`; OPAs reach the replica to which `front` is turned."""

    def __init__(self, cluster: Running, folder: Path) -> None:
        self.cluster, self._folder = cluster, folder
        self.points = DecisionPoints(cluster, folder)
        self.near = self.points.server
        self.line = Passage(urllib.parse.urlsplit(cluster.plane.url).port or 443)
        self.front = Passage(self.near.port)
        self._history = folder / "records.log"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["TwoReplicas"]:
        """With both replicas started, and all that is recorded kept in a file."""
        async with self.line.opened(), self.front.opened(), self.points.serving():
            self.points.send_to(self.front)
            self.far = Replica(self.cluster, self._folder / "far", "replica-far", self._rights())
            self.far.start()
            record = ("configmap", naming.bundle_record_name("shop"), "-n", OPERATOR_NAMESPACE)
            await self.points.until(
                lambda: self.cluster.plane.kubectl("get", *record, "--ignore-not-found"), "there is a record"
            )
            command = [find_or_build("kubectl"), "--kubeconfig", self.cluster.plane.kubeconfig, "get", *record]
            watch = Child("records", [*command, "--watch", "-o", 'jsonpath={.data.policy}{"\\n"}'], self._history)
            try:
                yield self
            finally:
                watch.stop(1)
                for replica in (self.near, self.far):  # to drain takes its time, and is not what is tested
                    replica.stop(0)

    def _rights(self) -> Path:
        """The kubeconfig of the bundle server's account, by way of the line."""
        access = kubeconfig.read(self.cluster.bundle_server_rights)
        assert access.credential is not None
        file = self._folder / "far.kubeconfig"
        url = f"https://{LOOPBACK}:{self.line.port}"
        file.write_text(kubeconfig.render("far", url, access.authority, access.credential))
        return file

    def recorded(self) -> list[tuple[int, str]]:
        """Serial and revision of every content that was ever recorded, the oldest first."""
        lines = [json.loads(line) for line in self._history.read_text().splitlines()]
        return list(dict.fromkeys((one["serial"], one["revision"]) for one in lines))

    async def served(self, replica: Replica) -> Served | None:
        """What a replica answers to the SVID of shop/orders, None while it cannot answer.

        An SVID is no pod, so that whoever looks is never taken for a decision point.
        """
        key_id, key = self._key()
        url = f"https://{LOOPBACK}:{replica.port}/bundles/{key_id}/shop/policy"
        timeout = aiohttp.ClientTimeout(total=10)
        connector = aiohttp.TCPConnector(ssl=self._tls(), force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(url, server_hostname=HOST) as response,
            ):
                if response.status != 200:
                    return None
                tag, body = Tag.parse(response.headers["ETag"]), await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return None
        scope = archive.scope_of(OPERATOR_NAMESPACE, "shop", "policy")
        meta = archive.read(body, {key_id: key}, scope).document["zerotrust_data"]["policy"]["meta"]
        found = Served(meta["serial"], meta["revision"], meta["issued_at"], meta["not_after"])
        assert tag == Tag(key_id, found.serial, found.revision, found.issued_at)
        return found

    def _key(self) -> tuple[str, ec.EllipticCurvePublicKey]:
        """The key that OPAs of the namespace are told to trust."""
        text = self.cluster.plane.kubectl("get", "configmap", CONFIG_MAP, "-n", "shop", "-o", "json")
        [(key_id, entry)] = yaml.safe_load(json.loads(text)["data"][OPA_FILE])["keys"].items()
        key = serialization.load_pem_public_key(entry["key"].encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return key_id, key

    def _tls(self) -> ssl.SSLContext:
        secret = json.loads(self.cluster.plane.kubectl("get", "secret", "orders-svid", "-n", "shop", "-o", "json"))
        files = {name: self._folder / f"orders-{name}" for name in ("tls.crt", "tls.key", "ca.crt")}
        for name, file in files.items():
            file.write_bytes(base64.b64decode(secret["data"][name]))
        context = ssl.create_default_context(cafile=str(files["ca.crt"]))
        context.load_cert_chain(files["tls.crt"], files["tls.key"])
        return context

    async def held(self, replica: Replica) -> int:
        """How many polls a replica holds."""
        url = f"http://{LOOPBACK}:{replica.metrics}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            text = await response.text()
        found = re.search(r"^zerotrust_bundle_waiters (\S+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    async def is_held(self, replica: Replica) -> None:
        """Wait until an OPA waits there for news of both of its bundles."""
        async with asyncio.timeout(20):
            while True:
                if await self.held(replica) >= 2:
                    return
                await asyncio.sleep(0.05)
