"""Importing the package does nothing and pulls in little. Each check runs in a Python of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import TIMEOUT_S

from epsagon_fast.queue.launch import OPTIONS

# What a traced process should not have to pay for, and what would be monkey-patched or break after a fork.
HEAVY = (
    "urllib3 sqlite3 starlette uvicorn ctypes multiprocessing asyncio socket ssl http subprocess concurrent.futures"
    " urllib.request tempfile logging traceback epsagon_fast.collector epsagon_fast.backend"
    " epsagon_fast.masking epsagon_fast.trimming epsagon_fast.queue.overview signal"
)
# Where annotations are looked at only when asked for, rows.py leaves named tuples to typing.
TYPING = " typing" if sys.version_info < (3, 14) else ""

# What a collector needs for its first request only, and loads beside the loop: rings fill meanwhile.
WHAT_SENDS = (
    "urllib3 urllib.parse ssl http.client email hashlib random"
    " epsagon_fast.collector.formats.otlp epsagon_fast.collector.measuring.rounds"
)
# What few collectors need.
RARE = (
    "sqlite3 argparse pathlib gzip queue concurrent.futures dataclasses uuid opentelemetry.proto epsagon_fast.producer"
)


def run(code: str, *options: str) -> str:
    # Isolated, and without site: its .pth files import what they like.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    head = f"import sys; sys.path += {[*paths, str(ROOT)]!r}\n"
    # The pure-Python ring needs ctypes.
    env = {name: value for name, value in os.environ.items() if name != "EPSAGON_FAST_IMPL"}
    command = [sys.executable, *(options or ("-I", "-S")), "-c", head + code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


ROOT = __file__.rpartition("/tests/")[0]


@pytest.mark.parametrize("name", (HEAVY + TYPING).split())
def test_import_does_not_load(name: str) -> None:
    assert run(f"import epsagon_fast; print({name!r} in sys.modules)") == "False\n"


@pytest.mark.parametrize("name", [*WHAT_SENDS.split(), *(RARE + TYPING).split()])
def test_a_collector_serves_without(name: str) -> None:
    assert run(f"import epsagon_fast.collector.__main__; print({name!r} in sys.modules)", *OPTIONS) == "False\n"


def test_import_has_no_side_effect() -> None:
    code = """
import os, signal, threading
def state():
    return (
        threading.active_count(),
        sorted(os.listdir("/proc/self/fd")),
        sorted(os.listdir("/proc/self/task")),
        open("/proc/self/task/%d/children" % os.getpid()).read(),
        [signal.getsignal(number) for number in signal.valid_signals()],
        # Other tests, and whoever else is on this machine, have names of their own there.
        [name for name in os.listdir("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp") if "epsagon-fast" in name],
        dict(os.environ),
    )
def forbid(event, args):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.posix_spawn", "os.mkdir", "ctypes.")):
        raise SystemExit(f"import did {event}")
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        raise SystemExit(f"import opened {args[0]}")
import orjson, logging
before = state()
sys.addaudithook(forbid)
sys.dont_write_bytecode = True
import epsagon_fast
assert state() == before
import atexit
print(atexit._ncallbacks() <= 1)
"""
    assert run(code) == "True\n"


def test_star_import_gives_the_public_names() -> None:
    assert run("from epsagon_fast import *; print(trace, event, label, Config, Outcome, ErrorCode)")


def test_every_public_name_is_there() -> None:
    assert (
        run("import epsagon_fast; print([n for n in epsagon_fast.__all__ if not hasattr(epsagon_fast, n)])") == "[]\n"
    )


# With all that an event, a label or an error may ask for, and a secret in an event that has to be cut.
A_TRACE = """
with epsagon.trace("work") as tracer:
    with epsagon.event("inner") as e:
        e.metadata["x"] = {"a": [1, b"2", "\\ud800"]}
    epsagon.label("k", object())
    epsagon.add_event({"id": "1", "resource": {"metadata": {"x": "y" * 200_000, "\\ud800": [b"1", "\\udc80"]}}})
    epsagon.add_event({"id": "2", "resource": {"metadata": {"x": "y" * 200_000, "password": "p", "q": "token=p"}}})
    epsagon.add_exception_type_and_message("T", "m")
    tracer.set_runner_metadata("k", "v")
    try:
        {}["k"]
    except KeyError as error:
        epsagon.error(error)
"""
# A fork imports what it must not find half imported.
A_FORK = """
if os.fork() == 0:
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("ready", [A_FORK, "epsagon.init()"], ids=["fork", "init"])
def test_tracing_imports_nothing_more(ready: str, tmp_path: Path) -> None:
    # A child that another thread forks in the middle of an import waits for its end for ever, if it needs the module.
    code = f"""
import os, logging, epsagon_fast as epsagon
os.environ |= {{"EPSAGON_TOKEN": "t", "EPSAGON_COLLECTOR_URL": "http://127.0.0.1:1", "EPSAGON_LAUNCH": "0"}}
os.environ["EPSAGON_RUNTIME_DIR"] = {str(tmp_path / "run")!r}
logging.disable()
{ready}
before = set(sys.modules)
{A_TRACE}
epsagon.flush(0.01)
pid = os.fork()
if pid == 0:
    with epsagon.trace("child"):
        pass
    print(sorted(set(sys.modules) - before), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert run(code) == "[]\n"


@pytest.mark.parametrize("module", ["traceback", "epsagon_fast.trimming", "urllib.request"])
def test_a_fork_waits_for_an_import_that_another_thread_has_begun(module: str) -> None:
    code = f"""
import os, signal, threading, time, epsagon_fast
os.environ["HTTPS_PROXY"] = "http://127.0.0.1:1"
begun = threading.Event()
class Slow:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            begun.set()
            time.sleep(0.2)
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=__import__, args=({module!r},))
thread.start()
begun.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(10)
    __import__({module!r})
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
thread.join()
"""
    assert run(code) == "0\n"


REFUSED_IMPORTS = """
class Nothing:
    def find_spec(self, name, path, target=None):
        raise ModuleNotFoundError(f"{name} is not there any more", name=name)
"""
ALL_OF_IT = f"""
{A_TRACE}
epsagon.label("k", 1)
tracer.handle()
print(tracer.stop(0.01), epsagon.flush(0.01))
epsagon.shutdown(0.01)
"""


BEFORE = {"traced before": "with epsagon.trace('first'): pass", "after init": "epsagon.init()", "never traced": ""}


@pytest.mark.parametrize("first", BEFORE.values(), ids=BEFORE)
def test_process_that_cannot_import_any_more_goes_on(first: str, tmp_path: Path) -> None:
    # As after a chroot, a change of user or a virtual environment that was replaced.
    code = f"""
import os, epsagon_fast as epsagon
os.environ |= {{"EPSAGON_TOKEN": "t", "EPSAGON_COLLECTOR_URL": "http://127.0.0.1:1", "EPSAGON_LAUNCH": "0"}}
os.environ["EPSAGON_RUNTIME_DIR"] = {str(tmp_path / "run")!r}
import io; sys.stderr = io.StringIO()
{first}
{REFUSED_IMPORTS}
sys.meta_path[:] = [Nothing()]
{ALL_OF_IT}
"""
    assert run(code) == "PENDING False\n"
