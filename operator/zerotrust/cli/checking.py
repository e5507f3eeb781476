"""What a check of `zerotrust doctor` answers, and how checks are carried out: whatever goes wrong with one, the others go on."""

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from zerotrust.cli.cluster import Cluster, Refused, in_words

if TYPE_CHECKING:
    from zerotrust.kube.resources import ResourceType

Verdict = Literal["ok", "warn", "fail", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("fail", "unknown", "warn", "ok")  # the worst first


@dataclass(frozen=True)
class Finding:
    """One line: `found` is what was seen, `remedy` what to do about it, empty where nothing is to be done."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Question:
    """A check by its name; `ask` may find more than one thing."""

    check: str
    ask: Callable[[Cluster], Awaitable[Iterable[tuple[Verdict, str, str]]]]


async def answer(question: Question, cluster: Cluster) -> list[Finding]:
    """Carry out one check; what could not be read is unknown, and says which right is missing."""
    from zerotrust.kube.errors import KubeError, Unreachable

    try:
        return [Finding(question.check, *found) for found in await question.ask(cluster)]
    except Unreachable:
        raise
    except KubeError as error:
        said = in_words(error).splitlines()
        return [Finding(question.check, "unknown", said[0], said[-1] if len(said) > 1 else "")]
    except Refused as error:
        return [Finding(question.check, "unknown", str(error))]


async def listed(cluster: Cluster, resource: "ResourceType", **how: Any) -> list[Any] | None:
    """Read all objects of a kind; None where the cluster does not serve it."""
    from zerotrust.kube.errors import NotFound

    found: list[Any] = []
    try:
        async for items, _ in cluster.client.list(resource, **how):
            found += items
    except NotFound:
        return None
    return found


@cache
def install() -> dict[str, list[dict[str, str]]]:
    """What the install makes: `policies` and `rights`, from manifests/."""
    known: dict[str, list[dict[str, str]]] = json.loads(
        (files("zerotrust.cli") / "install.json").read_text(encoding="utf-8")
    )
    return known
