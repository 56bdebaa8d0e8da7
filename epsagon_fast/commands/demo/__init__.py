"""Trace real work in several processes and check that all of it arrives.

Four worker processes, started in four ways, share the packages of the running Python's standard library: one trace for
a package, one event for a source file. One worker is killed in the middle of a trace, the collector is killed once too.
Then the embedded backend's database is compared with what the workers pushed. Exit code 1 if anything is missing.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from epsagon_fast.backend.place import TOKEN_VARIABLE
from epsagon_fast.queue.folder import SHARED_MEMORY, resolve
from epsagon_fast.queue.overview import look

# The worker that is killed dies after this many events of one trace.
DIE_AFTER = 5
ARRIVAL_TIMEOUT_S = 20.0
POLL_S = 0.05
# The rings are large, because a worker pushes whole source files while no collector reads for a moment.
RING_BYTES = 4 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast demo`."""
    parser.add_argument("--keep", action="store_true", help="leave the backend up until Ctrl-C, and keep its folder")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return 0 if nothing is missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        print(f"epsagon-fast demo: {error}; it needs: pip install 'epsagon-fast[backend]'", file=sys.stderr)
        return 1
    scratch = tempfile.mkdtemp(prefix="epsagon-fast-demo-")
    runtime = tempfile.mkdtemp(prefix="epsagon-fast-demo-", dir=SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None)
    try:
        return _demo(scratch, runtime, arguments.keep)
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
        if arguments.keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)


def _demo(scratch: str, runtime: str, is_kept: bool) -> int:
    from epsagon_fast.backend.store import Store
    from epsagon_fast.commands.demo.report import WorkerNotes, compare, table
    from epsagon_fast.commands.demo.ways import WAYS

    database = os.path.join(scratch, "backend.sqlite")
    notes_of = {way: os.path.join(scratch, way.replace(" ", "-")) for way in WAYS}
    with _backend(database) as url:
        # The user's own settings must not decide whether the demo's workers are traced.
        for name in ("DISABLE_EPSAGON", "EPSAGON_LAUNCH"):
            os.environ.pop(name, None)
        os.environ.update(_settings(url, runtime, scratch))
        folder = resolve(runtime).path
        try:
            _work(notes_of, folder, database)
            notes = WorkerNotes()
            for path in notes_of.values():
                notes.read(path)
            with Store(database) as store:
                _await(lambda: store.counts()["traces"], len(notes.traces))
                bytes_before = _stop_collector(folder)
                result = compare(notes, store)
        finally:
            _stop_collector(folder)
        print("\n" + table(result, notes, bytes_before))
        _show(database, url, is_kept)
    return 0 if not result.missing and result.died == 1 and result.delivered == result.opened else 1


def _show(database: str, url: str, is_kept: bool) -> None:
    """Print the request that is worth a look, and where it is; with `is_kept` wait there until Ctrl-C."""
    from epsagon_fast.backend.store import Store
    from epsagon_fast.backend.timeline import build
    from epsagon_fast.commands.demo.report import favourite
    from epsagon_fast.commands.show import as_text

    with Store(database) as store:
        trace_id = favourite(store)
        body = store.body(trace_id) if trace_id else None
    if trace_id is None or body is None:
        return
    print("\n" + as_text(build([(trace_id, body)])))
    print(f"{url}/requests/{trace_id}" + ("" if is_kept else "  (with --keep the backend stays up to show it)"))
    if is_kept:
        print("The backend stays until Ctrl-C.", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


def _settings(url: str, runtime: str, scratch: str) -> dict[str, str]:
    return {
        "EPSAGON_COLLECTOR_URL": url,
        "EPSAGON_TOKEN": "demo",
        "EPSAGON_APP_NAME": "demo",
        "EPSAGON_RUNTIME_DIR": runtime,
        "EPSAGON_STATE_DIR": scratch,
        "EPSAGON_RING_BYTES": str(RING_BYTES),
        "EPSAGON_SEND_TIMEOUT_SEC": "5",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def _work(notes_of: dict[str, str], folder: str, database: str) -> None:
    """Start the workers, kill the collector when a good part has arrived, and wait for the workers."""
    from epsagon_fast.backend.store import Store
    from epsagon_fast.commands.demo.ways import WAYS
    from epsagon_fast.commands.demo.work import standard_library

    packages = standard_library()
    shares = _shares(packages, len(WAYS))
    waits: dict[str, Callable[[], int]] = {}
    for (way, start), share in zip(WAYS.items(), shares, strict=True):
        victim = way == "subprocess"
        files = sum(map(len, share.values()))
        print(
            f"worker by {way}: {len(share)} packages, {files} files{', will be killed' if victim else ''}", flush=True
        )
        waits[way] = start(notes_of[way], share, DIE_AFTER if victim else 0)
    with Store(database) as store:
        _await(lambda: store.counts()["traces"], len(packages) // 5)
        _kill_collector(folder)
        for way, wait in waits.items():
            print(f"worker by {way} ended: {_status(wait())}; {store.counts()['traces']} traces arrived", flush=True)


def _shares(packages: dict[str, list[str]], count: int) -> list[dict[str, list[str]]]:
    """Deal the packages out, the largest first, each to the worker that has the fewest files so far."""
    shares: list[dict[str, list[str]]] = [{} for _ in range(count)]
    for name, paths in sorted(packages.items(), key=lambda item: -len(item[1])):
        min(shares, key=lambda share: sum(map(len, share.values())))[name] = paths
    # The last worker dies in its first trace with enough files, so it gets small packages first.
    shares[-1] = dict(sorted(shares[-1].items(), key=lambda item: len(item[1])))
    return shares


def _await(count: Callable[[], int], wanted: int) -> None:
    deadline = time.monotonic() + ARRIVAL_TIMEOUT_S
    while count() < wanted and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _kill_collector(folder: str) -> None:
    seen = look(folder)
    if seen.pid is None:
        raise RuntimeError("no collector runs in the middle of the demo")
    os.kill(seen.pid, signal.SIGKILL)
    print(f"collector {seen.pid} killed", flush=True)


def _stop_collector(folder: str) -> int:
    """Ask the collector to leave. Return how many bytes of traces all collectors saw before trimming."""
    deadline = time.monotonic() + ARRIVAL_TIMEOUT_S
    seen = look(folder)
    while seen.pid is not None and time.monotonic() < deadline:
        with suppress(ProcessLookupError):
            os.kill(seen.pid, signal.SIGTERM)
        time.sleep(POLL_S)
        seen = look(folder)
    return seen.counters.get("bytes_before_trimming", 0)


@contextmanager
def _backend(database: str) -> Iterator[str]:
    """Run the embedded backend in a process of its own, as a user would."""
    command = [sys.executable, "-m", "epsagon_fast", "backend", "--port", "0", "--database", database]
    # A token of the user's own backend is not the demo's.
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    backend = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert backend.stdout is not None
    try:
        for line in backend.stdout:
            if line.startswith("export EPSAGON_COLLECTOR_URL="):
                url = line.strip().partition("=")[2]
                print(f"backend listens on {url}", flush=True)
                yield url
                return
        raise RuntimeError("the backend did not start")
    finally:
        backend.terminate()
        backend.wait()
        backend.stdout.close()


def _status(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
