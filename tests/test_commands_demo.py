"""The demo's arithmetic on made-up notes and bodies, and the shop itself, open until it is told to close."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from kombu import Connection
from places import Place, descendants, until
from records import event_fields, exception_fields
from waiting import TIMEOUT_S

from epsagon_fast.backend.shape import summarize
from epsagon_fast.backend.store import Store
from epsagon_fast.commands import demo, main
from epsagon_fast.commands.demo import account, stage
from epsagon_fast.commands.demo.load.report import WorkerNotes, compare, favourite, table
from epsagon_fast.commands.demo.shop import broker


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as made:
        yield made


def noted(tmp_path: Path, *lines: dict[str, Any], torn: str = "") -> WorkerNotes:
    path = tmp_path / "notes"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    notes = WorkerNotes()
    notes.read(str(path))
    return notes


def opened(trace: str) -> dict[str, Any]:
    return {"opened": trace, "package": f"package {trace}"}


def added(trace: str, *events: str, refused: int = 0) -> list[dict[str, Any]]:
    return [{"trace": trace, "event": event, "refused": refused} for event in events]


def arrived(store: Store, trace: str, *events: str, error: str = "", app: str = "demo", **metadata: str) -> None:
    runner = event_fields("runner", "runner", {**exception_fields(), "type": error} if error else None, **metadata)
    others = [{**event_fields(), "id": event} for event in events]
    body = {"app_name": app, "token": "t", "events": [*others, runner], "exceptions": [], "version": "1"}
    data = json.dumps({**body, "platform": "python"}).encode()
    store.keep(trace, b"t", data, summarize(data))


def test_what_was_noted_and_arrived_is_not_missing(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1", "2"), opened("b"), *added("b", "3"))
    arrived(store, "a", "1", "2")
    arrived(store, "b", "3")
    result = compare(notes, store)
    assert (result.opened, result.delivered, result.pushed, result.arrived) == (2, 2, 3, 3)
    assert result.missing == []


def test_what_did_not_arrive_is_missing(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1", "2", "3"), opened("b"), *added("b", "4"))
    arrived(store, "a", "2")
    assert compare(notes, store).missing == ["2 events of package a", "the whole trace of package b"]


def test_what_was_dropped_as_too_big_is_named_and_not_missing(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1", "2", "3"))
    arrived(store, "a", "1", dropped_events="2", is_trimmed="true")
    result = compare(notes, store)
    assert result.missing == []
    assert (result.trimmed, dict(result.too_big)) == (1, {"package a": 2})


def test_what_was_refused_was_never_pushed(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1"), *added("a", "2", refused=1))
    arrived(store, "a", "1")
    result = compare(notes, store)
    assert (result.pushed, result.refused, result.missing) == (1, 1, [])


def test_event_that_arrives_without_its_note_is_no_fault(tmp_path: Path, store: Store) -> None:
    # The worker was killed between its push and its note.
    notes = noted(tmp_path, opened("a"), *added("a", "1"), torn='{"trace": "a", "eve')
    arrived(store, "a", "1", "2", error="ProcessDied")
    result = compare(notes, store)
    assert (result.arrived, result.died, result.missing) == (1, 1, [])


def test_worker_that_noted_nothing_says_nothing(tmp_path: Path, store: Store) -> None:
    notes = WorkerNotes()
    notes.read(str(tmp_path / "nowhere"))
    assert compare(notes, store).opened == 0


def test_costs_are_the_last_that_each_worker_noted(tmp_path: Path) -> None:
    costs = [{"closed": "a", "add_event_ns": n, "dumps_ns": n // 2} for n in (100, 300)]
    notes = noted(tmp_path, opened("a"), *costs)
    notes.read(str(tmp_path / "notes"))
    assert (notes.add_event_ns, notes.dumps_ns) == (600, 300)


def test_table_shows_every_figure(tmp_path: Path, store: Store) -> None:
    notes = noted(tmp_path, opened("a"), *added("a", "1", "2"), {"closed": "a", "add_event_ns": 4000, "dumps_ns": 2000})
    arrived(store, "a", "1", dropped_events="1")
    rows = dict(
        line.split("  ", 1) for line in table(compare(notes, store), notes, 12345).split("\n\n")[0].splitlines()
    )
    found = {name.strip(): value.strip() for name, value in ((n, v) for n, v in rows.items() if n.strip())}
    assert found["traces opened"] == "1"
    assert found["events left out"] == "1, of package a (1)"
    assert found["bytes before trimming"] == "12,345"
    assert found["add_event"] == "2.0 us an event, 2.00 x orjson.dumps of it"
    assert found["missing"] == "0"


def test_the_trace_that_is_shown_is_of_the_worker_that_died_else_one_that_fits_a_screen(store: Store) -> None:
    assert favourite(store) is None
    arrived(store, "large", *map(str, range(100)))
    assert favourite(store) == "large"
    arrived(store, "small", "1", "2")
    assert favourite(store) == "small"
    arrived(store, "failed", "1", error="SyntaxError")
    arrived(store, "died", "1", error="ProcessDied")
    assert favourite(store) == "died"


def test_request_whose_steps_all_arrived_is_complete(store: Store) -> None:
    request = account.asked("GET", "/", 200, {"web": (1, 3), "stock": (2, 2)})
    arrived(store, "a", "1", "2", app="web", http_trace_id=request.id)
    arrived(store, "b", app="stock", http_trace_id=request.id)
    arrived(store, "c", app="stock", http_trace_id=request.id, error="ProcessDied")
    found = account.compare([request], store)
    assert (found.expected, found.arrived, found.missing) == ({"traces": 3, "events": 5}, found.expected, [])
    assert found.ends == {"ok": 2, "died": 1}
    assert [line.split()[:4] for line in account.table(found).splitlines() if line.startswith("  ")][1:] == [
        ["traces", "3", "3", "0"],
        ["events", "5", "5", "0"],
    ]


def test_what_one_service_has_too_much_makes_up_for_no_other(store: Store) -> None:
    request = account.asked("GET", "/x", 200, {"web": (1, 2), "stock": (1, 1)})
    arrived(store, "a", app="stock", http_trace_id=request.id)
    arrived(store, "b", app="stock", http_trace_id=request.id)
    arrived(store, "c", app="web", http_trace_id=request.id)
    found = account.compare([request], store)
    assert found.missing == ["1 events of web for GET /x"]
    assert "MISSING: 1 events of web for GET /x" in account.table(found)


def test_what_the_demo_needs_is_its_extra() -> None:
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = {extra: [re.split("[>=]", line)[0] for line in extras[extra]] for extra in ("backend", "demo")}
    assert sorted(demo.BACKEND) == names["backend"]
    assert {*demo.SHOP} - {*demo.BACKEND} == {*names["demo"]} - {"epsagon-fast[backend,opentelemetry]"}


@pytest.mark.parametrize(("option", "extra"), [([], "demo"), (["--load"], "backend")])
def test_what_is_not_installed_is_named_with_its_extra(
    option: list[str], extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert main(["demo", *option]) == 1
    said = capsys.readouterr().err
    assert f"pip install 'epsagon-fast[{extra}]'" in said and "uvicorn" in said
    assert ("celery" in said) == (extra == "demo")


def test_worker_sees_no_message_before_all_of_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(message: Any) -> str:
        with pytest.raises(Empty):
            channel._get("celery")
        return repr(message)

    folders = {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path)}
    with Connection(transport=broker.Files, transport_options=folders) as connection:
        channel = connection.channel()
        monkeypatch.setattr(broker, "json", SimpleNamespace(dumps=look))
        for number in range(3):
            channel._put("celery", number)
            assert channel._get("celery") == number
        assert not list(tmp_path.iterdir())


def test_shop_that_is_broken_loses_nothing_and_closes_without_a_trace(place: Place) -> None:
    # Settings of the user's own must not decide what the demo shows.
    environment = {**place.env, "TMPDIR": str(place.scratch), "EPSAGON_LAUNCH": "0", "DISABLE_EPSAGON": "1"}
    words = [sys.executable, "-m", "epsagon_fast", "demo", "--keep"]
    said = place.scratch / "said"
    with said.open("w") as out:
        program = subprocess.Popen(words, env=environment, cwd=place.scratch, stdout=out, stderr=out)
    try:
        until(lambda: "until Ctrl-C" in said.read_text() or program.poll() is not None, said.read_text, 100)
        text = said.read_text()
        counts = {row[0]: row[1:] for row in re.findall(r"^  (traces|events) +(\d+) +(\d+) +(\d+) ", text, re.M)}
        assert {*counts} == {"traces", "events"} and all(lost == "0" for *_, lost in counts.values()), text
        assert "SoldOut" in text and "1 trace ends with the death of its worker" in text
        order = re.search(r"curl -X POST (\S+)/orders", text)
        runtime = re.search(r"EPSAGON_RUNTIME_DIR=(\S+)", text)
        assert order and runtime
        assert urllib3.request("POST", f"{order[1]}/orders/lamp/99", timeout=TIMEOUT_S).status == 202
    finally:
        mine = [program.pid, *descendants(program.pid)]
        program.send_signal(signal.SIGINT)
        code = program.wait(60)
    assert code == 0
    assert [path.name for path in place.scratch.iterdir() if path.name.startswith("epsagon")] == []
    assert not os.path.exists(runtime[1])
    assert [pid for pid in mine if os.path.exists(f"/proc/{pid}")] == []
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if runtime[1].encode() in read(path)]


def read(path: Path) -> bytes:
    """Return what a file of a process holds; nothing once that has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_signal_ends_the_demo_once_and_not_in_the_middle_of_a_clean_up() -> None:
    signals = stage.Signals()
    with pytest.raises(SystemExit) as ended, signals.held_back():
        with signals.held_back():
            signals.take(signal.SIGTERM, None)
            signals.take(signal.SIGINT, None)
        is_held = True
    assert (ended.value.code, is_held) == (128 + signal.SIGTERM, True)
    signals.take(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stage.Signals().take(signal.SIGINT, None)
