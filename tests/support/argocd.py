"""Argo CD without Argo CD: its health checks and actions in a Lua 5.1 that has what Argo CD leaves in its own, and no more."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lupa.lua51 import LuaRuntime, lua_type

from hack.gotools import find_or_build

Body = Mapping[str, Any]
MANIFEST = Path(__file__).resolve().parents[2] / "manifests" / "argocd" / "argocd-cm.yaml"
HEALTHS = ("Healthy", "Progressing", "Suspended", "Degraded")
# Argo CD opens the basic and the table library, and gives out a time and a date (argo-cd, util/lua/lua.go).
SANDBOX = """
local time, date = os.time, os.date
local kept = {
  "_G", "_VERSION", "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawset",
  "select", "setmetatable", "table", "tonumber", "tostring", "type", "unpack", "xpcall",
}
for _, name in ipairs(kept) do kept[name] = true end
getmetatable("").__index = nil
for name in pairs(_G) do if not kept[name] then _G[name] = nil end end
require = function(name)
  assert(name == "os", "there is no module " .. name)
  return {time = time, date = date}
end
"""


class Health(NamedTuple):
    """What Argo CD shows of a resource."""

    status: str
    message: str


class Customizations:
    """The customizations of an argocd-cm."""

    def __init__(self, path: Path = MANIFEST) -> None:
        self.data: dict[str, str] = yaml.safe_load(path.read_text())["data"]

    def health(self, body: Body) -> Health:
        """Judge an object as it is in the cluster."""
        script = self.data[f"resource.customizations.health.{_key(body)}"]
        found = _run(script, body)
        assert set(found) <= {"status", "message"}, found
        assert found["status"] in HEALTHS, found
        return Health(found["status"], found.get("message", ""))

    def actions(self, body: Body) -> dict[str, dict[str, Any] | None]:
        """Return each action with what it makes of the object, None where it cannot be taken now."""
        text = self.data.get(f"resource.customizations.actions.{_key(body)}")
        if text is None:
            return {}
        actions = yaml.safe_load(text)
        scripts = {one["name"]: one["action.lua"] for one in actions["definitions"]}
        offered = _run(actions["discovery.lua"], body)
        assert set(offered) == set(scripts)
        return {name: None if how.get("disabled") else _run(scripts[name], body) for name, how in offered.items()}


def _key(body: Body) -> str:
    return f"{body['apiVersion'].partition('/')[0]}_{body['kind']}"


def _run(script: str, body: Body) -> dict[str, Any]:
    lua = LuaRuntime(register_eval=False, register_builtins=False)
    lua.execute(SANDBOX)
    lua.globals().python = None
    lua.globals().obj = _to_lua(lua, body)
    found = _from_lua(lua.execute(script))
    assert isinstance(found, dict), found
    return found


def _to_lua(lua: LuaRuntime, value: Any) -> Any:
    if isinstance(value, Mapping):
        return lua.table_from({key: _to_lua(lua, part) for key, part in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, part) for part in value])
    return value


def _from_lua(value: Any) -> Any:
    """What is in a table; one without keys comes back as a dictionary, because Lua does not tell it from an empty list."""
    if lua_type(value) != "table":
        return value
    found = {key: _from_lua(part) for key, part in value.items()}
    return list(found.values()) if found and all(isinstance(key, int) for key in found) else found


def by_argo_cd(question: str, lines: Iterable[Any], *schemas: Path) -> list[Any]:
    """Ask Argo CD's own code (hack/tools/argocd-lua) about each line; with the API server's schemas, as for server-side apply."""
    asked = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(
        [find_or_build("argocd-lua"), MANIFEST, question, *schemas],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
