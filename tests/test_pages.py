"""Each error and warning that a user may see names the page that helps, found in the code by its syntax."""

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import epsagon_fast
from epsagon_fast.commands import COMMANDS
from epsagon_fast.pages import ADDRESS, PAGES, see

PACKAGE = Path(epsagon_fast.__file__).parent
ROOT = PACKAGE.parent
# What users call, and what runs in their processes.
PUBLIC = (
    "auto/",
    "compat/",
    "compiled.py",
    "config/",
    "integrations/",
    "producer/",
    "propagation.py",
    "testing/",
    "trimming/",
)
# Errors that no user sees as they are raised, by the function that raises them.
INSIDE = {
    "compiled.py": {"_load": "reported by `status` as the reason for plain Python"},
    "integrations/opentelemetry/__init__.py": {"__getattr__": "in Python's own words for a name that is not there"},
    "compat/__init__.py": {"__getattr__": "in Python's own words for a name that is not there"},
    "integrations/web/wsgi_bodies.py": {"__reduce__": "as Python's own of a generator, which this stands for"},
    "producer/fast_path.py": {"__reduce__": "of an object that only this package holds"},
    "trimming/_walking.py": dict.fromkeys(("root", "_string", "_nested_end"), "the reason for an event's own error"),
    "config/sampling.py": {"read": "the reason in an option's own error"},
}


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Return the package's modules, parsed: by the first test that asks, not by each process that collects."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def functions(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield each node with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else name
        yield inner, node
        yield from functions(node, inner)


def calls(node: ast.AST, *names: str) -> list[ast.Call]:
    """Return the calls of functions or methods of these names in a part of the code."""
    found = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
    return [each for each in found if getattr(each.func, "id", getattr(each.func, "attr", "")) in names]


def is_sentence(raised: ast.Raise) -> bool:
    """Say whether an error is raised with a text for people, not with what was wrong alone."""
    constants = [each.value for each in ast.walk(raised) if isinstance(each, ast.Constant)]
    return any(isinstance(each, str) and " " in each.strip() for each in constants)


def test_each_error_of_the_public_surface_names_its_page() -> None:
    silent = [
        f"{path}:{node.lineno}"
        for path, tree in trees().items()
        if path.startswith(PUBLIC)
        for function, node in functions(tree)
        if isinstance(node, ast.Raise) and is_sentence(node) and not calls(node, "see")
        if function not in INSIDE.get(path, {})
    ]
    assert silent == []


def test_each_warning_of_a_traced_process_names_its_page() -> None:
    # The collector's log is a file of its own, of which docs/operating.md explains each line.
    direct = [
        f"{path}:{call.lineno}"
        for path, tree in trees().items()
        if not path.startswith(("collector/", "backend/")) and path != "log.py"
        for call in calls(tree, "warning", "error", "exception")
        if "logger" in ast.unparse(call.func)
    ]
    assert direct == []
    for tree in trees().values():
        assert all(any(word.arg == "about" for word in call.keywords) for call in calls(tree, "warn", "warn_once"))


def test_commands_complain_in_one_place() -> None:
    direct = [
        path for path, tree in trees().items() if path.startswith("commands/") and "sys.stderr" in ast.unparse(tree)
    ]
    # `collector` says where it serves its metrics.
    assert direct == ["commands/collector.py", "commands/saying.py"]


def test_each_topic_is_in_the_table_and_needed() -> None:
    every = [call for tree in trees().values() for call in ast.walk(tree) if isinstance(call, ast.Call)]
    said = [word.value for call in every for word in call.keywords if word.arg == "about"]
    said += [call.args[0] for call in every if getattr(call.func, "id", "") == "see"]
    about = {each.value for each in said if isinstance(each, ast.Constant)}
    assert about | {f"epsagon-fast {command}" for command in COMMANDS} == {*PAGES}


@pytest.mark.parametrize("topic", PAGES)
def test_page_is_there_with_its_heading(topic: str) -> None:
    name, _, anchor = PAGES[topic].partition("#")
    headings = re.findall(r"^#+ (.+)", (ROOT / name).read_text(), re.M)
    assert not anchor or anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert see(topic) == f"; see {ADDRESS}{PAGES[topic]}"


def test_pages_are_where_the_project_says_that_it_is() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert ADDRESS.startswith(urls["Source"]) and urls["Changelog"].startswith(ADDRESS)
