"""The Rego modules that every policy bundle carries, as they are shipped with the package."""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType


@cache
def modules() -> MappingProxyType[str, str]:
    """Return each module's text by its name in the bundle (`zerotrust/authz/decision.rego`), sorted; tests are left out."""
    root = files("zerotrust") / "rego"
    found = {_name(path): text for path, text in _texts(root, "")}
    return MappingProxyType(dict(sorted(found.items())))


def _name(path: str) -> str:
    """The file's place under the roots that the policy bundle owns (`zerotrust/authz`, `system/log`)."""
    return f"zerotrust/{path}" if path.startswith("authz/") else f"system/{path}"


def _texts(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    texts = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            texts += _texts(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".rego") and not entry.name.endswith("_test.rego"):
            texts.append((f"{prefix}{entry.name}", entry.read_text(encoding="utf-8")))
    return texts
