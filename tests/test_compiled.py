"""A compiled module that is absent, not loadable or of another version costs speed and nothing else."""

import ast
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, ModuleType

import pytest
from places import Place, until

import epsagon_fast
from epsagon_fast import compiled
from epsagon_fast.backend import Backend
from epsagon_fast.producer import entering

SCRIPT = """
import epsagon_fast as epsagon
with epsagon.trace("small and large"):
    epsagon.add_event({"id": "small"})
    epsagon.add_event({"id": "large", "resource": {"metadata": {"k": "v" * 100_000}}})
print(epsagon.flush(60))
"""


def going_with(parts: Iterable[str]) -> list[str]:
    """Return what is not taken without one of these: the feeding looks into what the ring has read."""
    return ["feeding"] if "ring" in parts else []


@pytest.mark.parametrize(
    "broken", [{part} for part in compiled.MODULES] + [{*compiled.MODULES}], ids=lambda it: "+".join(sorted(it))
)
def test_module_that_does_not_load_is_replaced_by_its_twin_for_that_part_alone(
    place: Place, backend: Backend, broken: list[str]
) -> None:
    # With its bytecode, which four processes would make anew.
    shutil.copytree(Path(epsagon_fast.__file__).parent, place.scratch / "epsagon_fast")
    for part in broken:
        folder, _, name = compiled.MODULES[part].replace(".", "/").rpartition("/")
        (module,) = (place.scratch / folder).glob(f"{name}.*.so")
        # What the loader takes for a library, and finds to be none.
        module.write_bytes(b"\x7fELF" + bytes(60))
    place.env["PYTHONPATH"] = str(place.scratch)
    assert place.run(SCRIPT) == "True\n"
    until(lambda: backend.store.counts()["traces"] == 1, lambda: f"the trace arrives; {place.log()}")
    assert "Traceback" not in place.log()
    status = place.status()
    assert {part for part in compiled.MODULES if status[part] != "compiled"} == {*broken, *going_with(broken)}
    assert all(status[part].startswith("reference (") and ".so: " in status[part] for part in broken)
    said = place.command("doctor").stdout
    assert all(status[part] in said for part in broken)


# Runs before the package is imported: the constant is another one than the compiled module was built with.
CHANGED = """
import sys
from importlib.machinery import SourceFileLoader
load = SourceFileLoader.exec_module
def exec_module(loader, module):
    load(loader, module)
    if module.__name__ == "epsagon_fast." + sys.argv[1]:
        setattr(module, sys.argv[2], eval(sys.argv[3], vars(module)))
SourceFileLoader.exec_module = exec_module
from epsagon_fast import compiled
print([part for part, which in compiled.overview().items() if "do not agree" in which])
"""


@pytest.mark.parametrize(
    ("module", "constant", "value", "part"),
    [
        ("queue.names", "START_LOCK_FD", "4", "start"),
        ("queue.names", "LOG", "'log-1'", "start"),
        ("queue.layout", "RECORD_HEADER", "struct.Struct('<IIBBIHQ16s')", "ring"),
        ("queue.layout", "FREE_SHIFTS", "FREE_SHIFTS[:-1]", "ring"),
        ("protocol", "Record", "type('Record', (), {'_fields': Record._fields[::-1]})", "ring"),
        ("protocol", "EVENT_FIELDS", "EVENT_FIELDS[::-1]", "add_event"),
    ],
)
def test_module_that_was_built_with_other_constants_is_replaced_by_its_twin(
    module: str, constant: str, value: str, part: str
) -> None:
    command = [sys.executable, "-c", CHANGED, module, constant, value]
    env = {**os.environ, "EPSAGON_FAST_IMPL": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{[part, *going_with([part])]}\n", "")


# Runs before the package is imported: the compiled module is there, but older than one of its names.
OLDER = """
import sys
from importlib.machinery import ExtensionFileLoader
load = ExtensionFileLoader.exec_module
def exec_module(loader, module):
    load(loader, module)
    if module.__name__ == sys.argv[1]:
        delattr(module, sys.argv[2])
ExtensionFileLoader.exec_module = exec_module
import epsagon_fast as epsagon
from epsagon_fast import compiled
from epsagon_fast.testing import capture_traces
from epsagon_fast.trimming import trim
with capture_traces() as traces, epsagon.trace("run"), epsagon.event("outer"), epsagon.event("inner"):
    trim([b"{}"], 10)
print(traces[0].tree())
print([part for part, which in compiled.overview().items() if f"no {sys.argv[2]!r}" in which])
"""


@pytest.mark.parametrize("part", compiled.MODULES)
def test_module_that_lacks_a_name_is_replaced_by_its_twin(part: str) -> None:
    command = [sys.executable, "-c", OLDER, compiled.MODULES[part], compiled.NAMES[part][-1]]
    env = {**os.environ, "EPSAGON_FAST_IMPL": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"run\n    outer\n        inner\n{[part]}\n", "")


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in compiled.NAMES.items() for name in names])
def test_no_name_may_be_missing(monkeypatch: pytest.MonkeyPatch, part: str, name: str) -> None:
    older = ModuleType(compiled.MODULES[part])
    older.__file__ = "older.so"
    vars(older).update(dict.fromkeys({*compiled.NAMES[part]} - {name}))
    monkeypatch.setitem(sys.modules, older.__name__, older)
    monkeypatch.setattr(compiled, "_lacking", {})
    monkeypatch.delenv("EPSAGON_FAST_IMPL", raising=False)
    assert compiled.overview()[part] == f"reference (older.so was built from other sources: it has no {name!r})"
    monkeypatch.setenv("EPSAGON_FAST_IMPL", "compiled")
    with pytest.raises(ImportError, match=f"no '{name}'"):
        compiled.implementation(part)


def test_module_of_which_the_import_fails_otherwise_is_replaced_by_its_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise AttributeError("the package has no such constant")

    monkeypatch.setattr(compiled, "import_module", fail)
    monkeypatch.setattr(compiled, "_lacking", {})
    monkeypatch.delenv("EPSAGON_FAST_IMPL", raising=False)
    assert {*compiled.overview().values()} == {"reference (the package has no such constant)"}


def test_an_import_that_a_signal_interrupts_is_no_reason_to_take_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    class Limit(Exception):
        pass

    def stop(number: int, frame: FrameType | None) -> None:
        raise Limit

    before = signal.signal(signal.SIGALRM, stop)
    monkeypatch.setattr(compiled, "import_module", lambda name: signal.raise_signal(signal.SIGALRM))
    monkeypatch.setattr(compiled, "_lacking", {})
    monkeypatch.delenv("EPSAGON_FAST_IMPL", raising=False)
    try:
        with pytest.raises(Limit):
            compiled.implementation("start")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not compiled._lacking


def taken() -> Iterator[tuple[str, str]]:
    """Yield each module and name that the package's sources take from a compiled module."""
    modules = {*compiled.MODULES.values()}
    for path in Path(epsagon_fast.__file__).parent.rglob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text("utf-8")))]
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        yield from ((node.module, alias.name) for node in imports if node.module in modules for alias in node.names)
        whole = {a.asname or a.name: f"{n.module}.{a.name}" for n in imports for a in n.names}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = whole.get(node.value.id)
                if module in modules:
                    yield module, node.attr


def test_names_are_those_that_the_package_takes() -> None:
    all_of = {(compiled.MODULES[part], name) for part, names in compiled.NAMES.items() for name in names}
    blocks = compiled.MODULES["blocks"]
    star = {(blocks, name) for name in entering.__all__}
    assert all_of == {*taken()} - {(blocks, "*")} | star
