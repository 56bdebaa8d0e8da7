"""Starting collectors: with what command and environment, how often, and by how many."""

import ast
import errno
import fcntl
import logging
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec

import pytest
from dying import Dying
from places import descendants, give_away, loaded_anew, until
from waiting import TIMEOUT_S

from epsagon_fast.queue import _spawn, launch
from epsagon_fast.queue.folder import Folder
from epsagon_fast.queue.launch import MOST_BACKOFF_S, Launcher
from epsagon_fast.queue.state import LEAVING, NO_BEAT, NONE, SERVING


class Starts:
    """Counts starts instead of making them; `answer` is what the next ones come to. Time is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.times: list[float] = []
        self.answer: bool | Exception = True

    def start(self, folder: str, argv: list[bytes], env: list[bytes], although_held: bool) -> bool:
        self.times.append(self.now)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    made = Starts()
    monkeypatch.setattr(launch, "_start", made.start)
    monkeypatch.setattr(launch.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(launch.time, "time", lambda: made.now)
    for name in ("EPSAGON_LAUNCH", "EPSAGON_IN_COLLECTOR"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Folder:
    return Folder(str(tmp_path / "folder"))


def test_held_folder_needs_no_start(folder: Folder, starts: Starts) -> None:
    holder = folder.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        assert Launcher(folder).ensure(NO_BEAT)
        assert starts.times == []
        assert Launcher(folder).start(NO_BEAT, although_held=True)
        assert len(starts.times) == 1
    finally:
        os.close(holder)


def test_killed_collector_is_replaced_while_it_still_holds_the_folder(folder: Folder, starts: Starts) -> None:
    holder = folder.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    with Dying() as dying:
        beat = NO_BEAT._replace(pid=dying.pid, start_time=dying.start_time, incarnation=1, phase=SERVING)
        # Nothing is known of one that has not signed in.
        for living in (beat, NO_BEAT):
            assert Launcher(folder).ensure(living, looks_again=False)
        assert starts.times == []
        dying.kill()
        assert Launcher(folder).ensure(beat, looks_again=False)
        assert len(starts.times) == 1
        # Who looks again soon sees it then.
        assert Launcher(folder).ensure(beat)
        assert len(starts.times) == 1
    os.close(holder)


@pytest.mark.parametrize("phase", [LEAVING, NONE])
def test_collector_that_is_leaving_is_replaced(folder: Folder, starts: Starts, phase: int) -> None:
    beat = NO_BEAT._replace(incarnation=1, phase=phase)
    holder = folder.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert Launcher(folder).ensure(beat)
    os.close(holder)
    assert len(starts.times) == 1


def test_starts_that_lead_nowhere_become_rare_but_no_rarer_than_a_ring_can_wait(folder: Folder, starts: Starts) -> None:
    launcher = Launcher(folder)
    for _ in range(8000):
        launcher.ensure(NO_BEAT)
        starts.now += 0.05
    gaps = [b - a for a, b in zip(starts.times, starts.times[1:], strict=False)]
    # The first failure is known when the second start is made.
    assert gaps[:9] == pytest.approx([0.05, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5], abs=0.06)
    assert max(gaps) == pytest.approx(5, abs=0.06)


def test_collector_that_served_is_replaced_at_once_however_soon_it_died(folder: Folder, starts: Starts) -> None:
    launcher = Launcher(folder)
    for number in range(100):
        # Each of them ends a pass, and is killed before the next look.
        launcher.ensure(NO_BEAT._replace(incarnation=number, served=number))
        starts.now += 0.05
    assert len(starts.times) == 100


def test_collector_that_never_served_counts_as_failed_however_often_it_signed_in(
    folder: Folder, starts: Starts
) -> None:
    launcher = Launcher(folder)
    for incarnation in range(4000):
        launcher.ensure(NO_BEAT._replace(incarnation=incarnation, served=7))
        starts.now += 0.1
    assert len(starts.times) == pytest.approx(400 / MOST_BACKOFF_S, abs=10)


def test_collectors_that_others_start_do_not_make_our_starts_rare(folder: Folder, starts: Starts) -> None:
    launcher = Launcher(folder)
    starts.answer = False
    for _ in range(50):
        # None of them serves, as when each is killed while it starts.
        launcher.ensure(NO_BEAT)
        starts.now += 0.05
    assert len(starts.times) == 50


def test_hundred_processes_that_back_off_start_no_more_than_one(folder: Folder, starts: Starts) -> None:
    launchers = [Launcher(folder) for _ in range(100)]
    for launcher in launchers:
        launcher._wait_s = MOST_BACKOFF_S
        launcher._has_started = True
    note = pathlib.Path(folder.path, "start")
    note.touch()
    for _ in range(600):
        for launcher in launchers:
            before = len(starts.times)
            launcher.ensure(NO_BEAT)
            if len(starts.times) > before:
                os.utime(note, (starts.now, starts.now))
        starts.now += 0.1
    assert len(starts.times) <= 60 / MOST_BACKOFF_S + 1


def test_clock_that_was_set_back_holds_up_no_start(folder: Folder, starts: Starts) -> None:
    pathlib.Path(folder.path, "start").touch()  # long after `starts.now`
    launcher = Launcher(folder)
    launcher._wait_s = MOST_BACKOFF_S
    assert launcher.ensure(NO_BEAT)
    assert len(starts.times) == 1


def test_start_is_noted_for_other_processes(folder: Folder, start: Callable[..., bool]) -> None:
    note = pathlib.Path(folder.path, "start")
    note.touch(0o600)
    os.utime(note, (1, 1))
    assert start(folder.path, program("pass"), [], False)
    assert note.stat().st_mtime > 1


def test_two_starts_without_a_collector_are_one_warning(
    folder: Folder, starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = Launcher(folder)
    launcher.ensure(NO_BEAT)
    assert caplog.records == []
    for _ in range(5):
        starts.now += MOST_BACKOFF_S + 1
        launcher.ensure(NO_BEAT)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("epsagon_fast", logging.WARNING)
    assert "ends as soon as it is started" in record.getMessage() and folder.path in record.getMessage()


def test_collector_that_was_killed_is_no_warning(
    folder: Folder, starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = Launcher(folder)
    for incarnation in range(5):
        # It served, and may have died in the same second.
        launcher.ensure(NO_BEAT._replace(incarnation=incarnation, served=incarnation))
        starts.now += MOST_BACKOFF_S
    assert len(starts.times) == 5
    assert caplog.records == []


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "no process"), FileNotFoundError("sh"), ValueError("spec")])
def test_start_that_fails_is_one_warning_and_no_exception(
    folder: Folder, starts: Starts, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    starts.answer = error
    launcher = Launcher(folder)
    for _ in range(3):
        assert not launcher.ensure(NO_BEAT)
        starts.now += MOST_BACKOFF_S
    (record,) = caplog.records
    assert "no collector could be started" in record.getMessage()


def test_start_of_another_process_is_waited_for(
    folder: Folder, starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    starts.answer = False
    launcher = Launcher(folder)
    for _ in range(5):
        assert launcher.ensure(NO_BEAT)
        starts.now += MOST_BACKOFF_S
    assert caplog.records == []


@pytest.mark.parametrize("variable", ["EPSAGON_LAUNCH=0", "EPSAGON_LAUNCH=No", "EPSAGON_IN_COLLECTOR=1"])
def test_process_that_may_not_start_one_does_not(
    folder: Folder, starts: Starts, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(*variable.split("="))
    assert not Launcher(folder).ensure(NO_BEAT)
    assert starts.times == []


# The command.


def test_command_leaves_nothing_to_the_environment_and_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_TOKEN", "secret-token")
    words = [os.fsdecode(word) for word in launch.command("/the/folder")]
    assert words[1:3] == ["-I", "-S"]
    assert words[words.index("--runtime-dir") + 1] == "/the/folder"
    assert "secret-token" not in " ".join(words)


def test_command_runs_with_an_empty_environment_from_anywhere() -> None:
    words = launch.command("/the/folder")
    done = subprocess.run(words, env={}, cwd="/", capture_output=True, text=True, timeout=TIMEOUT_S)
    # It is there, and has inherited no lock.
    assert "in settle_down" in done.stderr
    assert done.stderr.endswith("OSError: [Errno 9] Bad file descriptor\n")


def test_environment_passes_on_where_things_are_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    given = {
        "HOME": "/home/me",
        "XDG_STATE_HOME": "/state",
        "EPSAGON_LINGER_SEC": "3",
        "EPSAGON_TOKEN": "secret-token",
        "EPSAGON_COLLECTOR_URL": "https://here/secret-key",
        "EPSAGON_ANYTHING": "secret",
        "XDG_SESSION_ID": "3",
        "PYTHONPATH": "/x",
        "DATABASE_PASSWORD": "hunter2",
        "LD_LIBRARY_PATH": "/lib",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    passed = dict(item.decode().split("=", 1) for item in launch.environment())
    kept = {"HOME", "XDG_STATE_HOME", "EPSAGON_LINGER_SEC", "LD_LIBRARY_PATH"}
    assert passed == {name: given[name] for name in kept} | {"EPSAGON_IN_COLLECTOR": "1", "MALLOC_ARENA_MAX": "1"}


def test_environment_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"EPSAGON_STATE_DIR", b"\xff=\xfe")
    assert b"EPSAGON_STATE_DIR=\xff=\xfe" in launch.environment()


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """A program that brings its Python with it, and whose name is an interpreter's."""
    own = tmp_path / "python3"
    own.write_text("#!/bin/sh\necho started again\n")
    own.chmod(0o755)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(own))
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    return own


@pytest.mark.parametrize("mark", ["frozen", "_MEIPASS", "__compiled__"])
def test_frozen_program_is_never_started_again(
    frozen: pathlib.Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    monkeypatch.delattr(sys, "frozen")
    monkeypatch.setattr(sys.modules["__main__"] if mark == "__compiled__" else sys, mark, "x", raising=False)
    with pytest.raises(launch.NoInterpreter):
        launch.interpreter()
    assert not launch.able()


@pytest.mark.parametrize("name", ["python-worker", "pythonista", "python3.11-app", "uwsgi"])
def test_only_the_name_of_an_interpreter_is_one(
    frozen: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(sys, "frozen")
    monkeypatch.setattr(sys, "executable", str(frozen.rename(frozen.with_name(name))))
    with pytest.raises(launch.NoInterpreter, match=name):
        launch.interpreter()


def test_frozen_program_says_once_that_it_has_no_collector_and_waits_for_none(
    frozen: pathlib.Path, folder: Folder, starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = Launcher(folder)
    for _ in range(3):
        assert not launcher.ensure(NO_BEAT) and not launcher.is_able
        starts.now += MOST_BACKOFF_S
    (record,) = caplog.records
    assert "no Python interpreter" in record.getMessage() and "`epsagon-fast collector`" in record.getMessage()
    assert starts.times == []


def test_package_inside_the_program_cannot_be_imported_by_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    inside = ModuleSpec("epsagon_fast", None, origin=str(tmp_path / "epsagon_fast" / "__init__.pyc"), is_package=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: inside)
    with pytest.raises(launch.NoInterpreter, match="epsagon_fast is in no file"):
        launch.import_path()


def test_archive_is_a_place_to_import_from(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    archive = tmp_path / "app.pyz"
    archive.touch()
    inside = ModuleSpec("epsagon_fast", None, origin=str(archive / "epsagon_fast" / "__init__.py"), is_package=True)
    inside.submodule_search_locations = [str(archive / "epsagon_fast")]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: inside)
    assert launch.import_path() == [str(archive)]


@pytest.mark.parametrize("executable", [None, "", "/usr/sbin/uwsgi", "/nonexistent/python3"])
def test_interpreter_is_found_without_a_usable_executable(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    found = launch.interpreter()
    assert os.path.basename(found).startswith("python") and os.access(found, os.X_OK)


def test_no_interpreter_anywhere_is_an_error_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    with pytest.raises(FileNotFoundError, match="uwsgi"):
        launch.interpreter()


def test_import_path_is_that_of_the_package_and_its_two_dependencies() -> None:
    check = f"import sys; sys.path += {launch.import_path()!r}; import epsagon_fast.collector.__main__, orjson, urllib3"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", check], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr


def test_dependency_that_is_not_found_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "orjson" else ModuleSpec(name, None))
    assert launch.import_path() == []


# The start itself, both ways.

PROGRAM = """
import os, sys, time
print(os.getpid(), os.getppid(), os.getsid(0), os.getcwd(), sorted(map(int, os.listdir("/proc/self/fd"))), flush=True)
print("error", file=sys.stderr, flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["compiled", "pure"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    if request.param == "compiled":
        monkeypatch.setattr(launch, "start", _spawn.start)
        return launch._start
    monkeypatch.setenv("EPSAGON_FAST_IMPL", "reference")
    return loaded_anew("epsagon_fast.queue.launch")._start  # type: ignore[no-any-return]


def program(text: str = PROGRAM) -> list[bytes]:
    return [os.fsencode(sys.executable), b"-I", b"-S", b"-c", text.encode()]


def said(folder: Folder, lines: int = 1) -> list[str]:
    log = pathlib.Path(folder.path, "log")

    def whole() -> list[str]:
        text = log.read_text()
        found = text[: text.rfind("\n") + 1].splitlines()
        return found if len(found) >= lines else []

    return until(whole, "it says so")


def test_started_program_is_nobodys_child_and_holds_the_start_lock(folder: Folder, start: Callable[..., bool]) -> None:
    children = descendants(os.getpid())
    assert start(folder.path, program(), [b"A=1"], False)
    pid, parent, session, cwd, *_ = said(folder, 2)[0].split()
    try:
        assert int(parent) != os.getpid()
        assert int(session) not in (os.getsid(0),)
        assert cwd == "/"
        assert said(folder, 2)[1] == "error"
        assert descendants(os.getpid()) == children
        # As long as it lives and has not let go of it, nobody else starts one.
        assert not start(folder.path, program(), [], False)
    finally:
        os.kill(int(pid), 9)
    path = os.path.join(folder.path, "start")
    lock = os.open(path, os.O_RDWR)
    try:
        until(lambda: _takes(lock), "its death lets go of the lock")
    finally:
        os.close(lock)


def _takes(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_held_folder_is_noticed_under_the_start_lock(folder: Folder, start: Callable[..., bool]) -> None:
    # Between the look and the start another process's collector may have begun to serve.
    holder = folder.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        assert not start(folder.path, program("raise SystemExit"), [], False)
        assert start(folder.path, program("print('started')"), [], True)
        assert said(folder) == ["started"]
    finally:
        os.close(holder)


def test_program_begins_with_the_usual_signals(folder: Folder, start: Callable[..., bool]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        show = "print([line for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn')])"
        assert start(folder.path, program(show), [], False)
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    blocked, ignored = (int(line.split()[1], 16) for line in ast.literal_eval(said(folder)[0]))
    assert blocked == 0 and not ignored & 1 << signal.SIGHUP - 1


def test_starter_keeps_no_descriptor(folder: Folder, start: Callable[..., bool]) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        start(folder.path, program("pass"), [], False)
    assert os.listdir("/proc/self/fd") == before


def test_program_that_cannot_be_run_is_an_error(folder: Folder, start: Callable[..., bool]) -> None:
    with pytest.raises(FileNotFoundError):
        start(folder.path, [b"/nonexistent"], [], False)


def test_folder_that_is_gone_is_an_error(folder: Folder, start: Callable[..., bool]) -> None:
    os.rmdir(folder.path)
    with pytest.raises(FileNotFoundError):
        start(folder.path, program(), [], False)


# Whose rights it has.

USER, OTHER = 1234, 65534
# By what a process has done before it starts a collector; its real, effective and saved ids.
DAEMON = ((0, USER, 0), (0, USER, 0))
CASES = {
    "a daemon that acts as a user": (DAEMON, USER),
    "a daemon that has laid down its group for good": (((0, USER, 0), (USER, USER, USER)), USER),
    "a daemon that acts as a user in root's group": (((0, USER, 0), (0, 0, 0)), None),
    "a program with another user's rights": (((OTHER, USER, USER), (USER, USER, USER)), None),
    "a program with root's rights": (((OTHER, 0, 0), (OTHER, OTHER, OTHER)), None),
    "a program with another group's rights": (((USER, USER, USER), (USER, OTHER, OTHER)), None),
}


@pytest.fixture
def base() -> Iterator[pathlib.Path]:
    """A directory that every user can reach and write to, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="epsagon-test-") as name:
        os.chmod(name, 0o1777)
        yield pathlib.Path(name)


@pytest.mark.root
@pytest.mark.parametrize("case", CASES)
def test_collector_can_never_be_another_user_again_or_there_is_none(
    base: pathlib.Path, start: Callable[..., bool], case: str
) -> None:
    (users, groups), expected = CASES[case]
    if hasattr(start.__globals__["start"], "__code__"):  # in plain Python no ids can be made one
        expected = None

    def started() -> int:
        os.setgroups([0, 4, USER, OTHER])
        os.setresgid(*groups)
        os.setresuid(*users)
        folder = Folder(str(base / "folder"))
        try:
            return int(not start(folder.path, [b"/bin/cat", b"/proc/self/status"], [], False))
        except PermissionError:
            return 7

    assert _in_child(started) == (7 if expected is None else 0)
    if expected is None:
        assert not (base / "folder" / "log").exists() or not (base / "folder" / "log").read_text()
        return
    log = until(lambda: (base / "folder" / "log").read_text(), "it runs")
    lines = dict(line.split(":\t", 1) for line in log.splitlines() if ":\t" in line)
    assert lines["Uid"].split() == lines["Gid"].split() == [str(expected)] * 4
    assert lines["Groups"].split() == [str(expected)]
    assert {lines[f"Cap{kind}"].strip("0") for kind in ("Prm", "Eff", "Inh", "Amb")} == {""}


def _in_child(function: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(function())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.root
@pytest.mark.parametrize("trap", ["another user's", "with a FIFO"])
def test_start_in_a_folder_that_was_exchanged_neither_waits_nor_starts(
    tmp_path: pathlib.Path, start: Callable[..., bool], trap: str
) -> None:
    folder = Folder(str(tmp_path / "folder"))
    if trap == "another user's":
        give_away(folder.path)
        os.mkfifo(tmp_path / "folder" / "log")
    else:
        os.mkfifo(tmp_path / "folder" / "log", 0o600)
    with pytest.raises(OSError):
        start(folder.path, [b"/bin/cat"], [], False)
