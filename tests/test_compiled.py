"""A compiled module that is absent, not loadable or of another version costs speed and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import Place, until

import epsagon_fast
from epsagon_fast import compiled
from epsagon_fast.backend import Backend

SCRIPT = """
import epsagon_fast as epsagon
with epsagon.trace("small and large"):
    epsagon.add_event({"id": "small"})
    epsagon.add_event({"id": "large", "resource": {"metadata": {"k": "v" * 100_000}}})
print(epsagon.flush(60))
"""


@pytest.mark.parametrize(
    "broken", [{part} for part in compiled.MODULES] + [{*compiled.MODULES}], ids=lambda it: "+".join(sorted(it))
)
def test_module_that_does_not_load_is_replaced_by_its_twin_for_that_part_alone(
    place: Place, backend: Backend, broken: list[str]
) -> None:
    unread = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(epsagon_fast.__file__).parent, place.scratch / "epsagon_fast", ignore=unread)
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
    assert {part for part in compiled.MODULES if status[part] != "compiled"} == {*broken}
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
        ("protocol", "Record", "NamedTuple('Record', [(name, int) for name in reversed(Record._fields)])", "ring"),
        ("protocol", "EVENT_FIELDS", "EVENT_FIELDS[::-1]", "add_event"),
    ],
)
def test_module_that_was_built_with_other_constants_is_replaced_by_its_twin(
    module: str, constant: str, value: str, part: str
) -> None:
    command = [sys.executable, "-c", CHANGED, module, constant, value]
    env = {**os.environ, "EPSAGON_FAST_IMPL": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{[part]}\n", "")
