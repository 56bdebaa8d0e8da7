"""What is recorded in each mode: the table of docs/privacy.md, made by a program that records canaries.

`WRITE=1 pytest tests/test_privacy.py` writes the table anew.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from places import TIMEOUT_S, Place, until

from epsagon_fast.backend import Backend

PAGE: Final = Path(__file__).parent.parent / "docs" / "privacy.md"
PROGRAM: Final = Path(__file__).with_name("canaries.py")
MODES: Final = ("strict", "standard", "everything")
MARKS: Final = ("<!-- canaries -->\n", "<!-- end of canaries -->\n")
# Whose texts they are, by the names in canaries.py.
ROWS: Final = {
    "path": "URL paths, of requests that come in and go out",
    "query": "queries",
    "header": "headers, such as `Referer`",
    "cookie": "`Cookie`, `Authorization` and their like",
    "body": "the first bytes of bodies",
    "arguments": "arguments and return values of traced functions and tasks",
    "local": "local variables",
    "message": "messages of exceptions, also of those that spans record",
    "cause": "messages of their causes, in tracebacks",
    "label": "labels",
    "metadata": "metadata that the application adds",
    "span name": "paths in the names of spans",
    "attributes": "attributes of OpenTelemetry's spans and their events",
    "statement": "`db.statement`",
    "instrumented path": "paths that instrumentations of OpenTelemetry record, such as Flask's",
    "instrumented query": "queries that these record",
    "instrumented statement": "statements that these record, such as sqlite3's",
    "parameter": "parameters of statements",
    "log": "texts of log lines",
    "masked": "values of [ignored keys](../SECURITY.md)",
}
TRACES: Final = 7


def lies_in(*folders: str, named: str = "*") -> bytes:
    """Return what the files in these folders hold. `named`: which files.

    A file may be gone before it is read, with what was delivered.
    """
    found = []
    for path in [path for folder in folders for path in Path(folder).rglob(named) if path.is_file()]:
        with suppress(FileNotFoundError):
            found.append(path.read_bytes())
    return b"\n".join(found)


def names_in(data: bytes) -> set[str]:
    """Return the names of the canaries in it."""
    return {name.decode() for name in re.findall(rb"canary-([a-z ]+)-", data)}


@contextmanager
def recorded(place: Place, mode: str, **settings: str) -> Iterator[None]:
    """Run the program. Inside the block all that it has recorded is sent or stored, and it still lives."""
    env = {"EPSAGON_PRIVACY": mode, "EPSAGON_IGNORED_KEYS": "password", **settings}
    process = place.start(PROGRAM.read_text(), env=env, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdin is not None
        if process.stdout.readline() == "done\n":
            yield
    finally:
        _, errors = process.communicate("\n", timeout=TIMEOUT_S)
        assert process.returncode == 0, errors


def test_strict_keeps_what_waits_for_a_sick_backend_clean_too(place: Place) -> None:
    # Port 1 is closed.
    with recorded(place, "strict", EPSAGON_COLLECTOR_URL="http://127.0.0.1:1"):
        stored = lies_in(place.env["EPSAGON_STATE_DIR"])
        assert b"python-function" in stored
        assert b"canary" not in stored + lies_in(place.folder)


def test_the_table_of_what_is_recorded_is_what_was_found(backend: Backend, place: Place) -> None:
    found: dict[str, set[str]] = {}
    waiting: set[str] = set()
    for number, mode in enumerate(MODES, 1):
        with recorded(place, mode):
            until(
                lambda number=number: backend.store.counts()["traces"] == number * TRACES,
                lambda: f"the traces arrive: {backend.store.counts()}",
            )
            ring = names_in(lies_in(place.folder, named="*.ring"))
            rest = b"".join(lies_in(place.folder, named=name) for name in ("journal*", "state", "log", "start"))
            bodies = b"\n".join(body for _, body in backend.store.bodies())
            database = backend.store._connection.serialize()
            found[mode] = names_in(rest + lies_in(place.env["EPSAGON_STATE_DIR"]) + bodies + database)
            waiting |= ring - found[mode]
            assert mode != "strict" or not ring
    # The collector masks what it reads; see SECURITY.md.
    assert waiting == {"masked"}
    # What a mode leaves lies there for the next one, so they come in the order in which each shows more.
    assert found["strict"] <= found["standard"] <= found["everything"] <= set(ROWS)
    lines = ["| what may hold people's data | `strict` | `standard` | `everything` |\n", "|---|---|---|---|\n"]
    for name, what in ROWS.items():
        cells = " | ".join("recorded" if name in found[mode] else "not" for mode in MODES)
        lines.append(f"| {what} | {cells} |\n")
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    table, _, after = rest.partition(MARKS[1])
    if "WRITE" in os.environ:
        PAGE.write_text(before + MARKS[0] + "".join(lines) + MARKS[1] + after)
    else:
        assert table == "".join(lines)
    assert found["strict"] == set()
