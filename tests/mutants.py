"""Changes one line of a module at a time, and asks whether the module's own tests notice: `make mutants`.

What no test notices is held by none, or makes no difference; EQUIVALENT says why for those. With names of modules as
arguments, of those only: `python tests/mutants.py collector/sending/backoff.py`.

Each mutant is a fork of a process that has imported everything else. It takes its module from a file beside links to
the rest of the package, so that the files one is working on stay as they are. It meets only the tests of that module,
without those of real processes (one_process.py).
"""

import ast
import contextlib
import importlib
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import one_process
import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "epsagon_fast"
WORKERS = 2
# Of one mutant: a changed condition may wait for ever.
TIMEOUT_S = 60
# Each module, and the test modules that are to hold it.
MODULES = {
    "collector/sending/backoff.py": ("test_backoff.py",),
    "collector/bounds.py": ("test_bounds.py",),
    "collector/sending/dispatch.py": ("test_dispatch.py",),
    "collector/leaving.py": ("test_leaving.py",),
    "collector/settling/drops.py": ("test_drops.py",),
    "collector/assembling/assembly.py": ("test_assembly.py", "test_accounts.py"),
}
# What was changed, and why it does the same.
EQUIVALENT = {
    (
        "longest_s: float = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20))"
        "  ->  longest_s: float = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 21))"
    ): "both are far over the longest pause",
    "self._now = 0.0  ->  self._now = 1.0": "begin() sets it before it is read",
    "self._left = self._left_for_closes = Held(0, 0)  ->  self._left = self._left_for_closes = Held(1, 0)": (
        "look() sets them before they are read"
    ),
    "self._left = self._left_for_closes = Held(0, 0)  ->  self._left = self._left_for_closes = Held(0, 1)": (
        "look() sets them before they are read"
    ),
    "self._group_is_gone = False  ->  pass": "it is looked at before it is read",
    "self._group_is_gone = False  ->  self._group_is_gone = True": "it is looked at before it is read",
    "self._parent_waits = False  ->  pass": "it is looked at before it is read",
    "self._parent_waits = False  ->  self._parent_waits = True": "it is looked at before it is read",
}
# Imported once: it takes longer than most tests.
IMPORTED = ("hypothesis.stateful", "orjson", "sqlite3", "starlette.applications", "trustme", "urllib3", "uvicorn")

COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
COMPUTED: dict[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*"}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    """A module with one change."""

    line: int
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"{self.before}  ->  {self.after}"


class Source:
    """A module's text, in which a node can be replaced. Columns of a tree count bytes."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_bytes()
        self.lines = self.text.splitlines(keepends=True)
        tree = ast.parse(self.text)
        # A number on the top level is a choice that has a name; a test that repeats it would hold nothing.
        choices = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        inside = {id(part) for node in choices for part in ast.walk(node)}
        self.nodes: list[Any] = [node for node in ast.walk(tree) if id(node) not in inside]

    def instead(self, node: Any, new: str) -> Mutant:
        """Replace a node."""
        begin, end = self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)
        return self._changed(begin, end, new)

    def between(self, left: Any, right: Any, new: str) -> Mutant:
        """Replace what stands between two nodes, but for parentheses."""
        begin, end = self._at(left.end_lineno, left.end_col_offset), self._at(right.lineno, right.col_offset)
        gap = self.text[begin:end].decode()
        operator = gap.strip("() \n")
        return self._changed(begin, end, gap.replace(operator, new, 1))

    def _at(self, line: int, column: int) -> int:
        return sum(map(len, self.lines[: line - 1])) + column

    def _changed(self, begin: int, end: int, new: str) -> Mutant:
        changed = self.text[:begin] + new.encode() + self.text[end:]
        line = self.text[:begin].count(b"\n")
        before, after = (text.splitlines()[line].decode().strip() for text in (self.text, changed))
        return Mutant(line + 1, before, after, changed.decode())


def changes(source: Source, node: Any) -> Iterator[Mutant]:
    """Yield the mutants that differ in this node."""
    match node:
        case ast.Compare(left=left, ops=[kind], comparators=[right]):
            yield source.between(left, right, COMPARED[type(kind)])
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in COMPUTED:
            yield source.between(left, right, COMPUTED[type(kind)])
        case ast.AugAssign(target=left, op=kind, value=right) if type(kind) in COMPUTED:
            yield source.between(left, right, f"{COMPUTED[type(kind)]}=")
        case ast.BoolOp(op=kind, values=values):
            for left, right in itertools.pairwise(values):
                yield source.between(left, right, "or" if isinstance(kind, ast.And) else "and")
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield source.instead(node, ast.unparse(operand))
        case ast.Constant(value=bool() | int() | float() as value):
            yield source.instead(node, str(not value if isinstance(value, bool) else value + 1))
        case ast.Name(id=name) if name in SWAPPED:
            yield source.instead(node, SWAPPED[name])
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute()]) | ast.Continue() | ast.Break():
            yield source.instead(node, "pass")


def mutants(module: str) -> list[Mutant]:
    """Return every mutant of a module."""
    source = Source(PACKAGE / module)
    return [mutant for node in source.nodes for mutant in changes(source, node)]


@contextlib.contextmanager
def overlay(module: str, text: str) -> Iterator[Path]:
    """Make a folder with the package in it, all links but for one module."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder, PACKAGE.name), PACKAGE
        for part in Path(module).parts:
            here.mkdir()
            for name in os.listdir(there):
                if name not in (part, "__pycache__"):
                    (here / name).symlink_to(there / name)
            here, there = here / part, there / part
        here.write_text(text)
        yield Path(folder)


def passes(module: str, text: str) -> bool:
    """Say whether a module's tests pass if it has this text."""
    with overlay(module, text) as folder:
        pid = os.fork()
        if not pid:
            os._exit(run(folder, MODULES[module]))
        return os.waitpid(pid, 0)[1] == 0


def run(folder: Path, tests: Sequence[str]) -> int:
    """Run the tests with the package in `folder`, in this process, which is to end then."""
    code = 1
    try:
        signal.alarm(TIMEOUT_S)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.chdir(folder)
        sys.path[:0] = [str(folder), str(TESTS)]
        options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*options, *(str(TESTS / name) for name in tests)], plugins=[one_process]))
    finally:
        os._exit(code)


def survivors(module: str) -> tuple[int, list[Mutant]]:
    """Return how many mutants a module has, and those that its tests let pass."""
    assert passes(module, (PACKAGE / module).read_text()), f"{module}: its tests fail as it is"
    found = mutants(module)
    with ThreadPoolExecutor(WORKERS) as workers:
        passed = [*workers.map(lambda mutant: passes(module, mutant.text), found)]
    return len(found), [mutant for mutant, survives in zip(found, passed, strict=True) if survives]


def main(modules: Sequence[str]) -> int:
    """Print what no test noticed. Return 1 if there is any of which EQUIVALENT does not say why."""
    sys.dont_write_bytecode = True
    for name in IMPORTED:
        importlib.import_module(name)
    unexplained = 0
    for module in modules or MODULES:
        count, left = survivors(module)
        unheld = [mutant for mutant in left if str(mutant) not in EQUIVALENT]
        unexplained += len(unheld)
        same = len(left) - len(unheld)
        print(f"{module}: {count} mutants, {count - len(left)} noticed, {same} do the same", flush=True)
        for mutant in unheld:
            print(f"  {mutant.line}: {mutant}", flush=True)
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
