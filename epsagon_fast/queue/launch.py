"""Starting a collector: a new program, in a session of its own, and an orphan.

It is never a `multiprocessing.Process`: a daemonic process may have no children, an exit hook would end the collector
with the worker that started it, and spawn imports the user's `__main__` again. It is never a direct child either: a
child would keep `while True: os.wait()` from ending and show up in SIGCHLD handlers. Process 1 adopts orphans. Where
process 1 is the application itself, collector/leaving.py takes care that it does not wait for ever.

The starter takes the lock file `start` without waiting. The new program inherits the lock and drops it when it serves
or dies. So there is one start at a time, and no clock decides anything.
"""

import os
import sys
import time

import epsagon_fast.private as private
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING
from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import warn
from epsagon_fast.patterns import pattern
from epsagon_fast.queue.folder import Folder
from epsagon_fast.queue.names import START, START_LOCK_FD
from epsagon_fast.queue.state import NO_BEAT, Beat

# A process waits this long before another start if the collector that it started never came to serve. The wait doubles
# up to the most, which a ring must survive: it fills meanwhile.
BACKOFF_S = 0.05
MOST_BACKOFF_S = 5.0
# Isolated from the environment and from site-packages. With the last two the package loads nothing of the producer.
OPTIONS = ("-I", "-S", "-X", "epsagon_fast_collector")
# While modules are imported there is no garbage, and to look for it takes a twentieth of the start.
BOOT = (
    "import gc, sys; _, path, _, folder, _, start_lock = sys.argv; sys.path.extend(path.split(':')); gc.disable(); "
    "from epsagon_fast.collector.__main__ import serve_folder; gc.enable(); "
    "sys.exit(serve_folder(folder, int(start_lock)))"
)
# The variables that the collector gets from its starter: where things are, and how the collector itself runs. It must
# depend on nothing else there and keep none of its secrets. What a trace needs travels with the trace.
PASSED_ON = (
    *("HOME", "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH"),
    *("XDG_STATE_HOME", "EPSAGON_STATE_DIR", "EPSAGON_COLLECTOR_MEMORY_MB", "EPSAGON_LINGER_SEC", "EPSAGON_FAST_IMPL"),
    *("OTEL_METRICS_EXPORTER", "OTEL_METRIC_EXPORT_INTERVAL"),
)
# What it gets besides. With one arena of glibc's, memory that senders gave back is there for all: they seldom allocate
# at the same time, because the interpreter's lock lets one run.
GIVEN = {"EPSAGON_IN_COLLECTOR": "1", "MALLOC_ARENA_MAX": "1"}
# The names of an interpreter, such as "python3.12", "pypy3" and "python3.13t", but not "python-worker".
INTERPRETER = pattern(r"(python|pypy)\d*(\.\d+)?(-dbg|[dtm]+)?")
HINT = "; `epsagon-fast collector`, installed beside it, would serve this program"
# What may go wrong. A ValueError: find_spec, for a module object made by hand. An ImportError: the process has lost its
# files (a chroot, a replaced environment).
NOT_STARTED = (OSError, ValueError, ImportError)
# The values of EPSAGON_LAUNCH, in any case, with which no collector is started.
NOT = ("0", "FALSE", "NO", "OFF")


class NoInterpreter(FileNotFoundError):
    """There is no Python that could import this package: the program is frozen, or it embeds Python."""


class Launcher:
    """Starts collectors for one folder on behalf of one process, with a back-off that it keeps in memory."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._wait_s = 0.0
        self._not_before = 0.0
        # The incarnation of the last collector that had served when this process last started one.
        self._served = 0
        self._has_started = False
        # Whether this program is able to start a collector at all.
        self.is_able = True
        self._complained = False

    def ensure(self, beat: Beat = NO_BEAT, *, looks_again: bool = True) -> bool:
        """Start a collector if none lives, none is being started and the back-off allows it.

        Return whether one lives or is being started. `beat`: the last sign of life of any collector here.

        One that is leaving, or that was killed, may hold the folder for a while yet. The one that is started waits for
        that. Whether it was killed costs ten times as much to ask as the rest, so who looks again soon does not.
        """
        is_held = self._folder.is_held()
        if is_held and not beat.is_ending and (looks_again or not beat.is_killed):
            return True
        return self.start(beat, although_held=is_held)

    def start(self, beat: Beat, although_held: bool = False) -> bool:
        """Start a collector unless one is being started or the back-off says no. Return whether one may be starting.

        `although_held`: start one even though a collector holds the folder, because that one is ending.
        """
        now = time.monotonic()
        if now < self._not_before or not allowed() or self._others_try():
            return False
        try:
            argv = command(self._folder.path)
            self.is_able = True
            started = _start(self._folder.path, argv, environment(), although_held)
        except NOT_STARTED as error:
            let_pass(error)
            self.is_able = not isinstance(error, NoInterpreter)
            self._back_off(now)
            self._complain(f"no collector could be started ({error})")
            return False
        if started:
            self._judge_last_start(now, beat)
        return True

    def _judge_last_start(self, now: float, beat: Beat) -> None:
        """Back off if the collector that this process started before never served.

        One that served was started rightly, however soon it died. A start that another process made says nothing.
        """
        if beat.served != self._served or not self._has_started:
            self._wait_s = 0.0
        else:
            self._back_off(now)
            self._complain("the collector ends as soon as it is started, see its log")
        self._served, self._has_started = beat.served, True

    def _back_off(self, now: float) -> None:
        self._wait_s = min(max(BACKOFF_S, 2 * self._wait_s), MOST_BACKOFF_S)
        self._not_before = now + self._wait_s

    def _others_try(self) -> bool:
        """Say whether another process tried within this one's wait. So a hundred workers try no oftener than one."""
        try:
            since_s = time.time() - os.stat(os.path.join(self._folder.path, START)).st_mtime
        except OSError as error:
            let_pass(error)
            return False
        # A negative time means that the clock was set back.
        return 0 <= since_s < self._wait_s

    def _complain(self, what: str) -> None:
        if not self._complained:
            self._complained = True
            warn("%s; traces wait in %s", what, self._folder.path, about="starting a collector")


def allowed() -> bool:
    """Say whether this process may start a collector at all."""
    return os.environ.get("EPSAGON_LAUNCH", "1").upper() not in NOT and "EPSAGON_IN_COLLECTOR" not in os.environ


def able() -> bool:
    """Say whether this program is able to start a collector: it has an interpreter that can import this package."""
    try:
        return bool(command(""))
    except NoInterpreter:
        return False
    except NOT_STARTED as error:
        let_pass(error)
        return True


def command(path: str) -> list[bytes]:
    """Return the collector's command line: isolated from the environment, the user's site and the current directory."""
    words = [interpreter(), *OPTIONS, "-c", BOOT, ":".join(import_path()), "--runtime-dir", path]
    return [os.fsencode(word) for word in [*words, "--start-lock-fd", str(START_LOCK_FD)]]


def environment() -> list[bytes]:
    """Return the environment of the collector, as `NAME=value`."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return [os.fsencode(f"{name}={value}") for name, value in {**passed, **GIVEN}.items()]


def import_path() -> list[str]:
    """Return the directories and archives in which the collector finds this package and its two dependencies.

    Raises NoInterpreter if one of them is neither in a file nor in a zip archive: then it is inside a frozen program.
    """
    # Not needed before the first trace, which imports it.
    from importlib.util import find_spec

    found = []
    for name in ("epsagon_fast", "orjson", "urllib3"):
        spec = find_spec(name)
        if spec is None or not spec.origin:
            continue
        folder = os.path.dirname(os.path.abspath(spec.origin))
        entry = os.path.dirname(folder) if spec.submodule_search_locations else folder
        if not os.path.isfile(spec.origin) and not os.path.isfile(entry):
            raise NoInterpreter(f"{name} is in no file that another program could import{HINT}")
        found.append(entry)
    return list(dict.fromkeys(found))


def is_frozen() -> bool:
    """Say whether this program brings its Python with it (PyInstaller, cx_Freeze, Nuitka, ...).

    Then `sys.executable` is the program itself, and starting it would do its work a second time.
    """
    marks = any(hasattr(sys, name) for name in ("frozen", "_MEIPASS", "oxidized"))
    return marks or hasattr(sys.modules.get("__main__"), "__compiled__")


def interpreter() -> str:
    """Return a Python interpreter of this version. NoInterpreter if there is none.

    `sys.executable` may be a frozen program, the server that embeds us (uWSGI), or empty.
    """
    kind = "pypy" if sys.implementation.name == "pypy" else "python"
    version = f"{kind}{sys.version_info.major}.{sys.version_info.minor}"
    names = (version + getattr(sys, "abiflags", ""), version)
    places = [os.path.join(prefix, "bin", name) for prefix in (sys.prefix, sys.base_prefix) for name in names]
    if not is_frozen() and INTERPRETER.fullmatch(os.path.basename(sys.executable or "")):
        places.insert(0, sys.executable)
    for place in places:
        if os.access(place, os.X_OK):
            return place
    raise NoInterpreter(f"no Python interpreter beside {sys.executable!r}{HINT}")


def _start(folder: str, argv: list[bytes], env: list[bytes], although_held: bool) -> bool:
    # Judged first, because another user may have put it there. Below a directory of ours he can put nothing.
    dir_fd = private.open_directory(folder)
    try:
        started = start(dir_fd, argv, env, although_held)
        if started:
            # When it was started, for the back-off of all processes.
            os.utime(START, dir_fd=dir_fd, follow_symlinks=False)
        return started
    finally:
        os.close(dir_fd)


if TYPE_CHECKING or implementation("start") == COMPILED:
    from epsagon_fast.queue._spawn import start
else:
    from epsagon_fast.queue._pure_start import start
