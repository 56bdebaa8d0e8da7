"""Integrations use what is meant for them: read from the syntax tree of each module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import epsagon_fast

INTEGRATIONS = sorted((Path(epsagon_fast.__file__).parent / "integrations").rglob("*.py"))
# Not ours: names of the interpreter, of named tuples, of threading and of Django. There is no other name for these.
NOT_OURS = {"_getframe", "_asdict", "_fields", "_replace", "_target", "_resource_closers"}


def is_private(name: str) -> bool:
    return name not in NOT_OURS and name.startswith("_") and name != "_" and not name.endswith("__")


def own_names(tree: ast.AST) -> set[str]:
    """Return the private names that a module defines, in whichever of its classes and functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names.add(node.attr)
    return set(filter(is_private, names))


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def foreign_names(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that a module takes from others."""
    own = own_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"import {alias.name}" for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from (f"line {node.lineno}: {name}" for name in names if isinstance(name, str) and is_private(name))


@pytest.mark.parametrize("path", INTEGRATIONS, ids=lambda path: path.name)
def test_integration_touches_no_underscore_of_another_module(path: Path) -> None:
    assert list(foreign_names(ast.parse(path.read_text()))) == []


def test_integration_takes_no_private_name_that_the_tracer_has() -> None:
    producer = Path(epsagon_fast.__file__).parent / "producer"
    taken: set[str] = set()
    for name in ("tracer", "recorder", "fast_path", "entering"):
        taken |= own_names(ast.parse((producer / f"{name}.py").read_text()))
    for path in INTEGRATIONS:
        tree = ast.parse(path.read_text())
        for kind in ast.walk(tree):
            if isinstance(kind, ast.ClassDef) and path.stem in ("celery", "request", "asgi_request", "wsgi_request"):
                assert own_names(kind) & taken == set(), f"{path.name}: {kind.name}"
