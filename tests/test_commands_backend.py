import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from waiting import TIMEOUT_S

from epsagon_fast.backend import Store

BODY = json.dumps({"app_name": "a", "token": "t", "events": [], "exceptions": [], "version": "1", "platform": "p"})


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory that is not the project's, beside a home for the command."""
    (tmp_path / "cwd").mkdir()
    return tmp_path / "cwd"


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "EPSAGON" not in name and name != "XDG_STATE_HOME"}
    return {**kept, "HOME": str(home), **more}


def command(*arguments: str) -> list[str]:
    return [os.path.join(os.path.dirname(sys.executable), "epsagon-fast"), "backend", *arguments]


class Started:
    """The command, running; `url` and `token` are what its export lines say."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout
        # The kill ends the read below, so that a command that says nothing fails and does not hang.
        patience = threading.Timer(TIMEOUT_S, process.kill)
        patience.start()
        self.comment, *exports, look = [process.stdout.readline().strip() for _ in range(4)]
        patience.cancel()
        patience.join()
        assert [line.partition("=")[0] for line in exports] == ["export EPSAGON_COLLECTOR_URL", "export EPSAGON_TOKEN"]
        self.url, self.token = (line.partition("=")[2] for line in exports)
        assert look == f"# Look at them: {self.url}"

    def post(self, key: str) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key}
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as client:
            return client.request("POST", self.url, body=BODY.encode(), headers=headers)

    def end(self, number: int) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, out, err


@contextlib.contextmanager
def started(cwd: Path, *arguments: str, **more: str) -> Iterator[Started]:
    line, pipe = command("--port", "0", *arguments), subprocess.PIPE
    surroundings = environment(cwd.parent, **more)
    with subprocess.Popen(line, cwd=cwd, env=surroundings, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            yield Started(process)
        finally:
            process.kill()


def failed(cwd: Path, line: list[str], **more: str) -> str:
    """Run a command that must fail at once with exit code 1, and return what it says: one line."""
    done = subprocess.run(
        line, cwd=cwd, env=environment(cwd.parent, **more), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stdout) == (1, "")
    [said] = done.stderr.splitlines()
    assert said.startswith("epsagon-fast backend: ")
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_takes_traces_at_what_it_prints_and_ends_with_0(elsewhere: Path, number: int) -> None:
    with started(elsewhere, "--database", "traces.sqlite") as backend:
        assert "traces.sqlite" in backend.comment
        assert backend.post("k1").status == 200
        assert backend.end(number) == (0, "", "")
    assert os.listdir(elsewhere) == ["traces.sqlite"]
    with Store(str(elsewhere / "traces.sqlite")) as store:
        assert list(store.bodies()) == [("k1", BODY.encode())]


def test_a_signal_in_its_first_moment_ends_it_with_0(elsewhere: Path) -> None:
    for _ in range(3):
        with started(elsewhere, "--database", ":memory:") as backend:
            assert backend.end(signal.SIGTERM) == (0, "", "")


def test_listening_beyond_this_machine_is_warned_of(elsewhere: Path) -> None:
    beyond = ("--host", "0.0.0.0", "--allow-host", "backend", "--database", ":memory:")
    with started(elsewhere, *beyond, "--open") as backend:
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as client:
            hosts = ("backend:80", "10.0.0.1", "attacker.example")
            answers = [client.request("GET", f"{backend.url}/traces", headers={"Host": host}) for host in hosts]
        assert [answer.status for answer in answers] == [200, 200, 421]
        _, _, err = backend.end(signal.SIGTERM)
    assert "all who reach it can read" in err
    with started(elsewhere, "--database", ":memory:") as backend:
        assert backend.end(signal.SIGTERM)[2] == ""


def test_listening_beyond_this_machine_wants_a_token_or_a_word(elsewhere: Path) -> None:
    line = command("--host", "0.0.0.0", "--port", "0", "--database", ":memory:")
    surroundings = environment(elsewhere.parent)
    done = subprocess.run(line, cwd=elsewhere, env=surroundings, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--token" in done.stderr and "--open" in done.stderr
    with started(elsewhere, *line[2:4], "--database", ":memory:", EPSAGON_BACKEND_TOKEN="hush") as backend:
        assert backend.post("k").status == 401
        backend.token = "hush"
        assert backend.post("k").status == 200
        code, out, err = backend.end(signal.SIGTERM)
    assert (code, err) == (0, "") and "hush" not in out


def test_an_empty_token_is_wrong_usage(elsewhere: Path) -> None:
    line = command("--token", " ")
    done = subprocess.run(line, cwd=elsewhere, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2 and "empty token" in done.stderr


@pytest.mark.parametrize("age", ["1w", "0", "0d", "30 s", "30S", "soon", ""])
def test_an_age_that_is_none_is_wrong_usage(elsewhere: Path, age: str) -> None:
    line = command("--max-age", age)
    done = subprocess.run(line, cwd=elsewhere, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2 and f"{age!r} is not a time above 0" in done.stderr and "30s, 12h, 7d" in done.stderr


def test_what_is_over_a_limit_is_forgotten(elsewhere: Path) -> None:
    with started(
        elsewhere, "--database", "db", "--max-traces", "2", "--max-age", "7d", "--max-bytes", "9999"
    ) as backend:
        assert [backend.post(f"k{number}").status for number in range(4)] == [200] * 4
        assert backend.end(signal.SIGTERM)[0] == 0
    with Store(str(elsewhere / "db")) as store:
        assert [trace_id for trace_id, _ in store.bodies()] == ["k2", "k3"]


def test_idle_connections_neither_stop_it_nor_fill_its_log(elsewhere: Path) -> None:
    few = f"ulimit -n 64; exec {shlex.join(command('--port', '0', '--database', ':memory:'))}"
    with (
        subprocess.Popen(["sh", "-c", few], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        contextlib.ExitStack() as idle,
    ):
        idle.callback(process.kill)
        backend = Started(process)
        address = urllib3.util.parse_url(backend.url)
        for _ in range(100):
            connection = socket.create_connection((address.host, address.port), timeout=TIMEOUT_S)
            idle.enter_context(connection).sendall(b"G")
        assert backend.post("key").status == 200
        assert len(backend.end(signal.SIGTERM)[2].splitlines()) <= 5


def test_a_trace_that_was_answered_survives_a_kill(elsewhere: Path) -> None:
    with started(elsewhere, "--database", "traces.sqlite") as backend:
        for number in range(20):
            assert backend.post(f"k{number}").status == 200
        assert backend.end(signal.SIGKILL)[0] == -signal.SIGKILL
    with Store(str(elsewhere / "traces.sqlite")) as store:
        assert [trace_id for trace_id, _ in store.bodies()] == [f"k{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("variables", "database"),
    [
        ({}, ".local/state/epsagon-fast/backend.sqlite"),
        ({"XDG_STATE_HOME": "{home}/xdg"}, "xdg/epsagon-fast/backend.sqlite"),
        ({"XDG_STATE_HOME": "relative"}, ".local/state/epsagon-fast/backend.sqlite"),
        ({"XDG_STATE_HOME": "{home}/xdg", "EPSAGON_STATE_DIR": "{home}/mine"}, "mine/backend.sqlite"),
    ],
)
def test_the_database_lies_in_the_state_directory(elsewhere: Path, variables: dict[str, str], database: str) -> None:
    home = elsewhere.parent
    with started(elsewhere, **{name: value.format(home=home) for name, value in variables.items()}) as backend:
        assert f" {home / database}." in backend.comment
        assert backend.post("k").status == 200
        assert backend.end(signal.SIGTERM) == (0, "", "")
    assert (home / database).stat().st_mode & 0o077 == 0
    assert (home / database).parent.stat().st_mode & 0o077 == 0
    assert os.listdir(elsewhere) == []


def test_a_port_in_use_is_said(elsewhere: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = failed(elsewhere, command("--port", port))
    assert "already in use" in said and port in said and "--port" in said


def test_a_host_that_is_not_ours_is_said(elsewhere: Path) -> None:
    for host in ("192.0.2.1", "no such host", "x" * 300):
        assert "cannot listen" in failed(elsewhere, command("--host", host, "--port", "0"))


def test_a_database_that_cannot_be_used_is_said(elsewhere: Path) -> None:
    (elsewhere / "text").write_text("not a database" * 100)
    for path in (".", "text", "missing/traces.sqlite"):
        said = failed(elsewhere, command("--port", "0", "--database", path))
        assert "cannot use the database" in said
    assert "not a directory" in failed(elsewhere, command("--port", "0"), EPSAGON_STATE_DIR="text")


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(elsewhere: Path, module: str) -> None:
    program = f"""
import sys
sys.modules[{module!r}] = None
from epsagon_fast.commands import main
sys.exit(main(["backend", "--port", "0"]))
"""
    said = failed(elsewhere, [sys.executable, "-c", program])
    assert module in said and "pip install 'epsagon-fast[backend]'" in said


@pytest.mark.parametrize("port", ["-1", "65536", "http", "", "٨"])
def test_what_is_no_port_is_wrong_usage(elsewhere: Path, port: str) -> None:
    done = subprocess.run(command("--port", port), cwd=elsewhere, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2 and "is not a port" in done.stderr
