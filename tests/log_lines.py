"""The lines that the package logs, as they stand in its code: for the list of them in docs/operating.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import epsagon_fast

PACKAGE = Path(epsagon_fast.__file__).parent
# The calls that log: methods of a logger, by the name of what they are called on, and a function of log.py.
_METHODS = {"info", "warning", "error", "exception"}
_LOGGERS = {"log", "_log", "_logger", "logger"}
# Methods of the package that log one of their arguments.
_OWN = {"_complain", "_tell"}
_FOLDERS = ("collector", "config", "integrations/gunicorn.py", "producer", "queue")


def logged() -> set[str]:
    """Return each message above DEBUG, with … for what is filled in."""
    return {
        re.sub(r"%[sdr]", "…", message)
        for folder in _FOLDERS
        for path in sorted([PACKAGE / folder] if folder.endswith(".py") else (PACKAGE / folder).rglob("*.py"))
        for message in _messages(ast.parse(path.read_text()))
    }


def _messages(module: ast.Module) -> Iterator[str]:
    for function in [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
        for call in [node for node in ast.walk(function) if isinstance(node, ast.Call)]:
            for argument in _arguments(call):
                # Some lines are only made of what is filled in.
                yield from (text for text in _texts(argument, function) if re.search("[a-z]", text.replace("%s", "")))


def _arguments(call: ast.Call) -> list[ast.expr]:
    """Return those arguments of a call that may be its log line; none if the call logs nothing."""
    called = call.func
    if isinstance(called, ast.Name) and called.id in ("warn", "warn_once"):
        return call.args[["warn", "warn_once"].index(called.id) :]
    if not isinstance(called, ast.Attribute):
        return []
    if called.attr in _OWN:
        # The others are a destination, a path or a reason, which is one word.
        return [each for each in call.args if not isinstance(each, ast.Constant) or " " in str(each.value)]
    if called.attr not in _METHODS:
        return []
    on = called.value.func if isinstance(called.value, ast.Call) else called.value
    name = on.attr if isinstance(on, ast.Attribute) else on.id if isinstance(on, ast.Name) else ""
    return call.args[:1] if name in _LOGGERS else []


def _texts(argument: ast.expr, function: ast.AST, followed: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the texts that an argument may be: itself, or what its function assigns to that name."""
    if isinstance(argument, ast.Name):
        # A name may be assigned what it was.
        for node in [] if argument.id in followed else ast.walk(function):
            if isinstance(node, ast.Assign) and any(getattr(each, "id", "") == argument.id for each in node.targets):
                yield from _texts(node.value, function, followed | {argument.id})
    elif isinstance(argument, ast.IfExp):
        yield from _texts(argument.body, function, followed)
        yield from _texts(argument.orelse, function, followed)
    elif isinstance(argument, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "%s" for part in argument.values)
    elif isinstance(argument, ast.Constant):
        yield str(argument.value)
