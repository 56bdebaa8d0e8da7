"""The diffs of docs/migrating.md: the old version is a program for the old tracer, the new one arrives."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from arrivals import arrived
from places import Place, until

from epsagon_fast.backend import Backend

PAGE = (Path(__file__).parents[1] / "docs/migrating.md").read_text()
# Where the applications of the page send to.
BACKEND = re.compile(r"http://127\.0\.0\.1:(?:8686|4318)")


class Change(NamedTuple):
    """One diff of the page. package: the old tracer's; names: of the runners that arrive."""

    package: str
    names: set[str]
    lines: list[str]

    def version(self, sign: str) -> str:
        """The application without the lines of the other version."""
        return "\n".join(line[1:] for line in self.lines if line[:1] in (" ", sign, ""))


PACKAGES = (("epsagon", {"localhost"}), ("opentelemetry.sdk", {"checkout"}), ("ddtrace", {"checkout"}))
DIFFS = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
CHANGES = [Change(*said, diff.splitlines()) for said, diff in zip(PACKAGES, DIFFS, strict=True)]


def imported(program: str) -> set[str]:
    """The modules from which a program takes something."""
    found = [node for node in ast.walk(ast.parse(program)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {
        name
        for node in found
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
    }


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.package)
def test_old_version_is_a_program_whose_imports_exist(change: Change) -> None:
    modules = imported(change.version("-"))
    assert any(f"{each}.".startswith(f"{change.package}.") for each in modules)
    for module in modules:
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            assert importlib.util.find_spec(module) is not None, module


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.package)
def test_new_version_runs_without_the_old_tracer_and_arrives(change: Change, backend: Backend, place: Place) -> None:
    program = change.version("+")
    assert not any(f"{each}.".startswith(f"{change.package}.") for each in imported(program))
    program, count = BACKEND.subn(backend.url, program)
    assert count == 1
    place.run(program, env={"EPSAGON_COLLECTOR_URL": "", "EPSAGON_TOKEN": "", "EPSAGON_APP_NAME": ""})
    until(lambda: {*arrived(backend)} >= change.names, lambda: f"{change.names} arrive: {place.log()}")
