"""Who may import whom, where the contracts in pyproject.toml cannot see it: the package itself, compiled modules."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import epsagon_fast

PACKAGE = Path(epsagon_fast.__file__).parent
SOURCES = Path(__file__).parents[1] / "_ext"
COMPILED = sorted(SOURCES.rglob("*.pyx"))
# They may use the package as an application does.
ON_TOP = ("commands",)
# What compiled modules read when they are imported.
CONSTANTS = {
    "epsagon_fast.protocol",
    "epsagon_fast.queue.layout",
    "epsagon_fast.queue.names",
    "epsagon_fast.trimming._types",
}
# What a compiled module looks into that another one has made: records as the ring has read them.
MADE = {"_feeding": {"epsagon_fast.queue._ring"}}


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_modules_import_modules_and_not_the_package_that_imports_them() -> None:
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE)
        if place.parts[0] not in ON_TOP:
            face = {"epsagon_fast", "." * len(place.parts)}
            assert not face & {*imported(ast.parse(path.read_text("utf-8")))}, place


@pytest.mark.parametrize("source", COMPILED, ids=lambda source: source.stem)
def test_compiled_module_knows_constants_and_modules_of_its_own_folder(source: Path) -> None:
    text = source.read_text("utf-8")
    found = re.findall(r"^\s*(?:from|import|cimport)\s+(epsagon_fast[.\w]*)(?:\s+import\s+(\w+))?", text, re.MULTILINE)
    neighbours = f"epsagon_fast.{source.parent.name}."
    known = CONSTANTS | MADE.get(source.stem, set()) | {module for module, _ in found if module.startswith(neighbours)}
    assert {module if module in known else f"{module}.{name}" for module, name in found} <= known


def test_only_the_queue_maps_memory() -> None:
    users = {path.parent.name for path in SOURCES.rglob("*.[ph]*") if re.search(r"\bmmap\b", path.read_text("utf-8"))}
    assert users == {"queue"}
