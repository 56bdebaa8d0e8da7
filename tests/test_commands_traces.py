"""`epsagon-fast traces` and `show`, at a running backend and at its file."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from records import event_fields, exception_fields
from servers import Server
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend, running
from epsagon_fast.backend.retention import Retention
from epsagon_fast.backend.shape import summarize
from epsagon_fast.backend.store import Store
from epsagon_fast.commands import looking, main
from epsagon_fast.pages import see

AT = 1_700_000_000.0
REQUEST = "ab" * 16


def keep(store: Store, trace_id: str, name: str, duration: float = 0.1, error: str = "", **more: Any) -> None:
    exception = {**exception_fields("no funds"), "type": error} if error else None
    labels = json.dumps({"user": trace_id})
    runner = event_fields("r", "runner", exception, http_trace_id=more.pop("request", REQUEST), labels=labels)
    runner |= {"start_time": AT + store.counts()["traces"], "duration": duration, "id": f"{trace_id:0>16}", **more}
    runner["resource"] = {**runner["resource"], "name": name, "type": "python-function"}
    fields = {"app_name": "shop", "token": "t", "events": [event_fields(), runner], "exceptions": []}
    body = json.dumps({**fields, "version": "1", "platform": "p"}).encode()
    store.keep(trace_id, b"t", body, summarize(body))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Backend]:
    with running(database=str(tmp_path / "db"), retention=Retention(bytes=None)) as backend:
        keep(backend.store, "a", "checkout", 0.2)
        keep(backend.store, "b", "charge", 0.7, "Declined", parent_id=f"{'a':0>16}")
        keep(backend.store, "c", "\x1b[2Jmail\u202e", 0.05, request="other")
        yield backend


@pytest.fixture(params=["api", "file"])
def ask(
    request: pytest.FixtureRequest, served: Backend, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs a command that must succeed, and returns what it prints."""
    where = ("--backend", served.url) if request.param == "api" else ("--database", served.database)

    def asked(*line: str) -> str:
        assert main([*line, *where]) == 0
        return capsys.readouterr().out

    return asked


def names(listed: str) -> list[str]:
    return [json.loads(line)["trace_id"] for line in listed.splitlines()]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), "abc"),
        (("--limit", "2"), "bc"),
        (("--failed",), "b"),
        (("--slow", "150ms"), "ab"),
        (("--name", "checkout"), "a"),
        (("--label", "user=b", "--text", "funds"), "b"),
        (("--error-type", "Declined", "--app", "shop", "--max-duration", "1"), "b"),
        (("--status", "timeout"), ""),
        (("--attr", "http_trace_id=other"), "c"),
    ],
)
def test_traces_are_listed_by_the_filters_of_the_pages(
    ask: Callable[..., str], options: tuple[str, ...], wanted: str
) -> None:
    assert names(ask("traces", "--json", *options)) == [*wanted]


def test_a_line_says_what_a_person_looks_for_and_nothing_a_terminal_obeys(ask: Callable[..., str]) -> None:
    lines = ask("traces").splitlines()
    assert len(lines) == 3 and not {*"\x1b\u202e"} & {*"".join(lines)}
    assert all(said in lines[1] for said in ("700 ms", "▕██████████▏", "Declined", "shop", "charge", "2 events"))


@pytest.mark.parametrize("form", ["", "otlp+"])
def test_without_options_it_is_asked_where_traces_go(
    served: Backend, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("EPSAGON_COLLECTOR_URL", f"{form}{served.url}")
    assert main(["traces", "--json"]) == 0
    out, err = capsys.readouterr()
    assert (names(out), err) == ([*"abc"], "")
    assert main(["show", "a"]) == 0


def test_where_traces_go_the_token_is_the_one_that_goes_there_anyway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPSAGON_BACKEND_TOKEN", "of another one")
    monkeypatch.setenv("EPSAGON_TOKEN", "secret")
    with running(database=str(tmp_path / "db"), token="secret") as backend:
        monkeypatch.setenv("EPSAGON_COLLECTOR_URL", backend.url)
        assert main(["traces"]) == 0
    assert "no trace yet" in capsys.readouterr().err


def test_where_traces_go_is_no_such_backend_so_that_of_this_machine_is_shown_and_named(
    served: Backend, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "DEFAULT_URL", served.url)
    monkeypatch.setenv("EPSAGON_BACKEND_TOKEN", "of another one")
    with Server(servers.status(404)) as other:
        monkeypatch.setenv("EPSAGON_COLLECTOR_URL", other.url)
        assert main(["traces", "--json"]) == 0
    out, err = capsys.readouterr()
    assert names(out) == [*"abc"]
    assert f"where traces go, {other.url.rstrip('/')} answers 404" in err and f"this is from {served.url}" in err
    assert all("of another one" not in str(request.headers) for request in other.requests)


@pytest.mark.parametrize("request_id", [REQUEST, "a", "b"])
def test_a_request_is_shown_with_all_its_traces_by_any_of_their_ids(ask: Callable[..., str], request_id: str) -> None:
    head, *lines = ask("show", request_id).splitlines()
    assert "4 events of 2 traces (shop)" in head
    assert [line.split("▕")[0].rstrip() for line in lines if "db" not in line] == ["checkout", "  charge"]
    assert "Declined: no funds" in next(line for line in lines if "charge" in line)
    assert len(json.loads(ask("show", request_id, "--json"))) == 4


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_without_the_characters_of_bars_shows_plainer_ones(tmp_path: Path, encoding: str) -> None:
    with Store(str(tmp_path / "db")) as store:
        keep(store, "a", "caf\xe9 \u2603")
    for words, bar in ((["traces"], "|##########|"), (["show", "a"], "|    250 ms")):
        told = subprocess.run(
            [sys.executable, "-m", "epsagon_fast", *words, "--database", str(tmp_path / "db")],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        assert (told.returncode, told.stderr) == (0, b"")
        said = told.stdout.decode(encoding)
        assert bar in said and "\\u2603" in said


def test_a_list_of_nothing_says_so_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "db"
    with Store(str(path)) as store:
        for options, said in (([], "no trace yet; start your program with"), (["--failed"], "no trace is like that")):
            assert main(["traces", "--json", "--database", str(path), *options]) == 0
            out, err = capsys.readouterr()
            assert out == "" and said in err and see("epsagon-fast traces") in err
        keep(store, "a", "work")
    assert main(["traces", "--database", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "   2 events  " in out and err == ""


def test_what_is_not_there_or_not_clear_is_said_in_a_line(served: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    for line, code, said in (
        (["show", "nothing", "--backend", served.url], 1, "no trace and no request"),
        (["show", "a", "--database", "/nowhere/db"], 1, "there is no file"),
        (["show", "a", "--backend", "http://127.0.0.1:1"], 1, "does not answer"),
        (["traces", "--slow", "soon", "--backend", served.url], 2, "--slow must be"),
        (["traces", "--slow", "soon", "--database", served.database], 2, "--slow must be"),
        (["traces", "--label", "user", "--database", served.database], 2, "KEY=VALUE"),
        (["traces", "--limit", "0", "--database", served.database], 2, "--limit"),
    ):
        assert main(line) == code
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1) and said in err


@pytest.mark.parametrize("line", [["traces"], ["traces", "--text", "work"], ["show", "a"]])
def test_a_database_that_is_damaged_further_in_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[str]
) -> None:
    path = tmp_path / "db"
    with Store(str(path)) as store:
        keep(store, "a", "work")
        pages = store._connection.execute("SELECT rootpage FROM sqlite_master WHERE name IN ('traces', 'terms_data')")
        damaged = [number for (number,) in pages]
    with path.open("r+b") as file:
        for number in damaged:
            file.seek((number - 1) * 4096)
            file.write(b"\xff" * 4096)
    assert main([*line, "--database", str(path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and "malformed" in err


@pytest.mark.parametrize("body", [b"hello", b"[]", b"7", b'{"traces": []}', b"\xff"])
def test_a_server_of_something_else_is_said_in_a_line(capsys: pytest.CaptureFixture[str], body: bytes) -> None:
    for status in (200, 400):
        with Server(servers.status(status, body=body)) as server:
            assert main(["traces", "--backend", server.url]) == 1
            assert "is no backend of this version" in capsys.readouterr().err


def test_a_token_is_asked_for_and_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with running(token="hush") as backend:
        assert main(["traces", "--backend", backend.url]) == 1
        assert "--token" in capsys.readouterr().err
        assert main(["traces", "--backend", backend.url, "--token", "hush"]) == 0


@pytest.mark.parametrize("of", ["api", "file"])
def test_what_comes_is_followed(served: Backend, of: str) -> None:
    where = ["--backend", served.url] if of == "api" else ["--database", served.database]
    line = [sys.executable, "-m", "epsagon_fast", "traces", "--follow", "--json", "--failed", *where]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert names(process.stdout.readline()) == ["b"]
            keep(served.store, "d", "fine")
            keep(served.store, "e", "charge", error="Declined")
            assert names(process.stdout.readline()) == ["e"]
        finally:
            process.kill()


def test_looking_needs_no_server(tmp_path: Path) -> None:
    with Store(str(tmp_path / "db")) as store:
        keep(store, "a", "work")
    program = f"""
import sys
sys.modules.update(dict.fromkeys(("starlette", "uvicorn", "jinja2")))
from epsagon_fast.commands import looking, main
sys.exit(main(["show", "a", "--database", {str(tmp_path / "db")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stderr) == (0, "") and "work" in done.stdout


def test_without_a_backend_its_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EPSAGON_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("epsagon_fast.commands.looking.DEFAULT_URL", "http://127.0.0.1:1")
    assert main(["traces"]) == 1
    with Store(os.path.join(tmp_path, "backend.sqlite")) as store:
        keep(store, "a", "work")
    capsys.readouterr()
    assert main(["traces"]) == 0 and "work" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--slow", "--max-duration", "--since", "--until"])
def test_a_time_that_is_none_is_told_by_the_name_of_its_option(capsys: pytest.CaptureFixture[str], option: str) -> None:
    # Before anybody is asked.
    assert main(["traces", option, "1w", "--backend", "http://127.0.0.1:1"]) == 2
    err = capsys.readouterr().err
    assert f"{option} must be" in err and "7d" in err
