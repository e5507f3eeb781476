"""The shipped Rego modules compiled to WebAssembly, and evaluated without any of OPA's own evaluator.

Source: OPA docs/docs/wasm.md, ABI 1.2 or newer (`opa_eval`). The module calls the host for what it has not: wasm_builtins.py.
"""

import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wasmtime

from hack.gotools import find_or_build
from tests.support.rego import written_modules
from tests.support.wasm_builtins import Builtins, Undefined

ENTRY_POINT = "zerotrust/authz/decision"
PAGE = 65_536
JSON_FORMAT = 0
MOST_ARGUMENTS = 4


def compiled(folder: Path) -> bytes:
    """The modules as `opa build` compiles them."""
    bundle = folder / "bundle.tar.gz"
    command = [find_or_build("opa"), "build", "--target", "wasm", "--entrypoint", ENTRY_POINT, "--output", bundle]
    ran = subprocess.run([*command, written_modules(folder / "modules")], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    with tarfile.open(bundle) as archive:
        [member] = [one for one in archive if one.name.lstrip("/") == "policy.wasm"]
        content = archive.extractfile(member)
        assert content is not None
        return content.read()


class WasmPolicy:
    """One policy with its data, asked again and again. wasmtime.Trap is raised when it cannot answer."""

    def __init__(self, policy: bytes, data: Mapping[str, Any]) -> None:
        self._builtins = Builtins()
        engine = wasmtime.Engine()
        module = wasmtime.Module(engine, policy)
        self._store = wasmtime.Store(engine)
        self._memory = wasmtime.Memory(self._store, wasmtime.MemoryType(wasmtime.Limits(2, None)))
        imports = [self._import(one) for one in module.imports]
        self._exports = wasmtime.Instance(self._store, module, imports).exports(self._store)
        self._names = {number: name for name, number in self._told("builtins").items()}
        self._entry_point = self._told("entrypoints")[ENTRY_POINT]
        self._data = self._parsed(data)
        self._heap = self._call("opa_heap_ptr_get")

    def decide(self, given: Any, now_ns: int) -> Any:
        """What is decided about an input at a time, in nanoseconds since 1970; None where that is undefined."""
        self._builtins.now_ns = now_ns
        written = json.dumps(given).encode()
        self._write(self._heap, written)
        free = self._heap + len(written) + (-len(written)) % 8
        found = self._call("opa_eval", 0, self._entry_point, self._data, self._heap, len(written), free, JSON_FORMAT)
        results = json.loads(self._text(found))
        assert len(results) <= 1, results
        return results[0]["result"] if results else None

    def _import(self, wanted: wasmtime.ImportType) -> wasmtime.Memory | wasmtime.Func:
        if wanted.name == "memory":
            return self._memory
        assert isinstance(wanted.type, wasmtime.FuncType)
        assert wanted.name is not None
        if wanted.name == "opa_abort":
            return wasmtime.Func(self._store, wanted.type, self._abort)
        assert wanted.name in {f"opa_builtin{count}" for count in range(MOST_ARGUMENTS + 1)}, wanted.name
        return wasmtime.Func(self._store, wanted.type, self._builtin)

    def _builtin(self, number: int, _context: int, *arguments: int) -> int:
        """Answer a built-in; null is how OPA's own hosts say that it is undefined."""
        values = [json.loads(self._text(self._call("opa_json_dump", one))) for one in arguments]
        try:
            return self._parsed(self._builtins.call(self._names[number], *values))
        except Undefined:
            return 0

    def _abort(self, message: int) -> None:
        raise AssertionError(self._text(message))

    def _told(self, name: str) -> dict[str, int]:
        found: dict[str, int] = json.loads(self._text(self._call("opa_json_dump", self._call(name))))
        return found

    def _call(self, name: str, *arguments: int) -> int:
        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        return int(function(self._store, *arguments))

    def _parsed(self, value: Any) -> int:
        """The address of a value, in the module's own form."""
        written = json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")
        address = self._call("opa_malloc", len(written))
        self._write(address, written)
        found = self._call("opa_json_parse", address, len(written))
        assert found, "the module cannot read a value"
        return found

    def _write(self, address: int, content: bytes) -> None:
        lacking = address + len(content) + PAGE - self._memory.data_len(self._store)
        if lacking > 0:
            self._memory.grow(self._store, -(-lacking // PAGE))
        self._memory.write(self._store, content, address)

    def _text(self, address: int) -> str:
        found = bytearray()
        while b"\0" not in found:
            found += self._memory.read(self._store, address + len(found), address + len(found) + 4096)
        return bytes(found[: found.index(b"\0")]).decode(errors="surrogateescape")  # Rego's texts may be any bytes
