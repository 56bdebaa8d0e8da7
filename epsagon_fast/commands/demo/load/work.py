"""A worker: it reads, parses and hashes the source files of packages, one trace for each package.

A worker writes down what it pushed, line by line and past all buffers, so that its notes survive its own SIGKILL. A
note is written when the call has returned: from then on the record is promised to arrive.

    python -m epsagon_fast.commands.demo.load.work NOTES PACKAGES.json DIE_AFTER
"""

import ast
import hashlib
import json
import os
import pathlib
import signal
import sys
import time
import warnings
from typing import Any

import orjson

import epsagon_fast as epsagon
from epsagon_fast.producer.process import process

# No new package is begun after this time, so that the demo ends in time on any machine.
BUDGET_S = 15.0


class Worker:
    """One worker's run over its packages. `die_after`: events in one trace after which it kills itself; 0: never."""

    def __init__(self, notes: str, die_after: int) -> None:
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._die_after = die_after
        self._add_event_ns = 0
        self._dumps_ns = 0

    def run(self, packages: dict[str, list[str]]) -> None:
        """Trace each package: its name and the paths of its source files."""
        began = time.monotonic()
        for name, paths in packages.items():
            if time.monotonic() - began > BUDGET_S:
                return
            self._trace(name, paths)

    def _trace(self, name: str, paths: list[str]) -> None:
        totals = {"files": 0, "bytes": 0, "functions": 0}
        with epsagon.trace(name) as tracer:
            self._note(opened=tracer.trace_id, package=name)
            for number, path in enumerate(paths, 1):
                event, error, functions = study(path)
                if error is not None:
                    tracer.add_exception(error)
                self._push(tracer, event)
                totals["files"] += 1
                totals["bytes"] += int(event["resource"]["metadata"]["bytes"])
                totals["functions"] += functions
                if number == self._die_after:
                    os.kill(os.getpid(), signal.SIGKILL)
            for label, value in totals.items():
                tracer.add_label(label, value)
        self._note(closed=tracer.trace_id, add_event_ns=self._add_event_ns, dumps_ns=self._dumps_ns)

    def _push(self, tracer: epsagon.Tracer, event: dict[str, Any]) -> None:
        refused = process.refusals().total()
        began = time.perf_counter_ns()
        orjson.dumps(event)
        dumped = time.perf_counter_ns()
        tracer.add_event(event)
        self._add_event_ns += time.perf_counter_ns() - dumped
        self._dumps_ns += dumped - began
        self._note(trace=tracer.trace_id, event=event["id"], refused=process.refusals().total() - refused)

    def _note(self, **fields: object) -> None:
        os.write(self._notes, json.dumps(fields).encode() + b"\n")


def study(path: str) -> tuple[dict[str, Any], SyntaxError | None, int]:
    """Return the event of one source file, its syntax error if it has one, and how many functions it defines."""
    began = time.time()
    source = pathlib.Path(path).read_bytes()
    error, functions = None, 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, path)
        functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))
    except (SyntaxError, ValueError) as found:
        error = found if isinstance(found, SyntaxError) else SyntaxError(str(found))
    metadata = {
        "path": path,
        "bytes": str(len(source)),
        "lines": str(source.count(b"\n")),
        "functions": str(functions),
        "item_hash": hashlib.sha256(source).hexdigest(),
        "source": source.decode("utf-8", "replace"),
    }
    event = {
        "id": path,
        "start_time": began,
        "resource": {"name": os.path.basename(path), "type": "file", "operation": "parse", "metadata": metadata},
        "origin": "demo",
        "duration": time.time() - began,
        "error_code": int(epsagon.ErrorCode.OK if error is None else epsagon.ErrorCode.EXCEPTION),
        "exception": None,
    }
    return event, error, functions


def standard_library() -> dict[str, list[str]]:
    """Return the packages of the running Python's standard library, with their source files, in a stable order."""
    root = pathlib.Path(os.__file__).parent
    packages: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if "site-packages" in parts or "__pycache__" in parts:
            continue
        # A module that lies in no package is one of its own.
        name = ".".join(parts[:-1]) or path.stem
        packages.setdefault(name, []).append(str(path))
    return packages


def work(notes: str, packages: dict[str, list[str]], die_after: int) -> None:
    """Do a worker's whole job in this process, which ends soon after."""
    Worker(notes, die_after).run(packages)


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as listed:
        work(sys.argv[1], json.load(listed), int(sys.argv[3]))
