"""The whole controller against the fake API server, in this process: started, killed and started again."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support.fakeapi import FakeApi
from zerotrust.cli.app import Controller, Options
from zerotrust.common.naming import API_VERSION
from zerotrust.engine.clock import Clock
from zerotrust.kube.client import load_configuration

OPERATOR_NAMESPACE = "zerotrust-system"
TRUST_DOMAIN = "example.org"


class Rig:
    """One controller over one fake API server; quick to retry, so that tests need not wait for the real back-off."""

    def __init__(self, server: FakeApi, folder: Path, clock: Clock | None = None, **options: Any) -> None:
        self.server, self._folder, self._clock, self._options = server, folder, clock, options
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self.controller: Controller

    async def start(self) -> None:
        """Start a controller and wait until it leads."""
        configuration = await load_configuration(str(self.server.kubeconfig(self._folder / "kubeconfig")))
        quick: dict[str, Any] = {
            "namespace": OPERATOR_NAMESPACE,
            "metrics_host": "127.0.0.1",
            "metrics_port": 0,
            "workers": 8,
            "retry_base": timedelta(milliseconds=40),
            "retry_longest": timedelta(seconds=1),
            "drain_seconds": 0.5,
            "request_timeout": 1.0,
            "lease_duration": timedelta(seconds=1.2),
        }
        self.controller = Controller(configuration, Options(**quick | self._options), self._clock)
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self.controller.run(self._stop))
        await self.until(lambda: self.controller.metrics.leading._value.get() == 1)

    async def watching(self) -> None:
        """Wait until kopf has a stream for every kind."""
        await self.until(
            lambda: all(self.server.open_watches(kind) for kind in ("secrets", "td", "svid", "serviceaccounts"))
        )

    async def stop(self) -> None:
        """Stop gracefully."""
        self._stop.set()
        assert self._task is not None
        await asyncio.wait_for(self._task, 15)

    async def kill(self) -> None:
        """End it as SIGKILL would: nothing of it reaches the server any more (see `Halt`), nothing is cleaned up."""
        self.server.halt()
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(BaseException):
            await asyncio.wait_for(self._task, 15)
        self.server.resume()

    @property
    def died(self) -> BaseException | None:
        """The error that the controller has ended with, if it has."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        """Wait for a condition, and fail at once if the controller ends meanwhile."""

        def done() -> object:
            if self._task is not None and self._task.done() and not self._task.cancelled():
                error = self._task.exception()
                if error is not None:
                    raise error
            return condition()

        await self.server.until(done, seconds)

    async def idle(self) -> None:
        """Wait until nothing is waiting for work, now or after a failure."""
        await self.until(lambda: self.controller.engine.idle)

    def domain(self, **spec: Any) -> None:
        """Create the default TrustDomain."""
        self.server.create(resource("TrustDomain", TRUST_DOMAIN, spec={"default": True, **spec}))

    def identity(self, name: str = "orders", namespace: str = "shop", account: bool = True, **spec: Any) -> None:
        """Create a ServiceIdentity, with its ServiceAccount."""
        if account and self.server.get("ServiceAccount", name, namespace) is None:
            self.server.create(
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
            )
        self.server.create(resource("ServiceIdentity", name, namespace, spec))

    def condition(self, type_: str = "Ready", name: str = "orders", namespace: str | None = "shop") -> tuple[str, str]:
        """Status and reason of a condition; empty texts when it is not there."""
        kind = "ServiceIdentity" if namespace else "TrustDomain"
        body = self.server.get(kind, name, namespace) or {}
        for one in body.get("status", {}).get("conditions", []):
            if one["type"] == type_:
                return one["status"], one["reason"]
        return "", ""

    def is_ready(self, name: str = "orders", namespace: str = "shop") -> bool:
        """Tell whether an identity is Ready."""
        return self.condition("Ready", name, namespace)[0] == "True"

    def secret(self, name: str = "orders-svid", namespace: str = "shop") -> dict[str, Any]:
        """A Secret's body."""
        body = self.server.get("Secret", name, namespace)
        assert body is not None, f"there is no Secret {namespace}/{name}"
        return dict(body)

    def issued(self) -> int:
        """How many certificates this controller has issued."""
        total = 0.0
        for family in self.controller.metrics.registry.collect():
            if family.name == "zerotrust_issued":
                total += sum(sample.value for sample in family.samples if sample.name.endswith("_total"))
        return int(total)

    def writes(self) -> list[tuple[str, str, str, str]]:
        """Every applied write but the Lease's: verb, resource, namespace, name."""
        return [
            (write.verb, f"{write.resource}/{write.subresource}".rstrip("/"), write.namespace, write.name)
            for write in self.server.writes
            if write.resource != "leases" and write.was_applied
        ]


def resource(kind: str, name: str, namespace: str = "", spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One of our resources as a body."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec or {})}


@contextlib.asynccontextmanager
async def running(server: FakeApi, folder: Path, clock: Clock | None = None, **options: Any) -> Any:
    """A started controller that is stopped at the end, whatever it has come to."""
    rig = Rig(server, folder, clock, **options)
    await rig.start()
    try:
        yield rig
    finally:
        with contextlib.suppress(Exception):
            await rig.stop()


async def replica(server: FakeApi, folder: Path, name: str) -> asyncio.subprocess.Process:
    """A controller as a process of its own: in one event loop, the end of one kopf would cancel the other's tasks."""
    kubeconfig = server.kubeconfig(folder / name)
    arguments = ["-m", "zerotrust", "controller", "--kubeconfig", str(kubeconfig), "--metrics-host", "127.0.0.1"]
    log = (folder / f"{name}.log").open("wb")
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, "--metrics-port", "0", stderr=log)
