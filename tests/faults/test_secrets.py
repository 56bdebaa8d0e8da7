"""Tokens and masked values: never in a log, a status, an exception, a command line, a name; masked ones on no disk."""

import os
import signal
import stat
from pathlib import Path

from places import FULL, times, until
from scenes import Scene, holds, scene
from servers import Server, certificate, status

TOKEN = "t0ken-that-nobody-may-see"
HEADER = "h34der-that-nobody-may-see"
MASKED = "v4lue-that-must-be-masked"

SECRETIVE = f"""
import logging, sys
logging.basicConfig(level=logging.DEBUG)
import epsagon_fast as epsagon, noting
epsagon.init(ignored_keys=("password",), debug=True, headers={{"api-key": "{HEADER}"}})
for _ in range(5):
    with epsagon.trace("t") as tracer:
        metadata = {{"password": "{MASKED}", "body": '{{"password":"{MASKED}"}}'}}
        tracer.add_event({{"id": "e", "resource": {{"metadata": metadata}}}})
        epsagon.label("password", "{MASKED}")
        tracer.set_runner_metadata("password", "{MASKED}")
        noting.add(tracer)
    epsagon.flush(2)
try:
    epsagon.init(token=17, headers={{"api-key": "{HEADER}"}})
except TypeError as error:
    print(error)
print(tracer, repr(tracer), tracer.handle(), flush=True)
sys.stdin.readline()
"""


def test_nothing_secret_is_to_be_seen_anywhere(tmp_path: Path) -> None:
    behaviours = [
        status(503),
        status(401, body=f"wrong token {TOKEN} or {HEADER}".encode()),
        status(302, {"Location": f"/{TOKEN}"}),
    ]
    with Server() as server, scene("secrets: logs, status, files", url=server.url, EPSAGON_TOKEN=TOKEN) as here:
        here.env["EPSAGON_TOKEN"] = TOKEN
        for behave in [*behaviours, None] * times(5, 1):
            if behave is None:
                server.close()
            else:
                server.behave = behave
            with here.start(SECRETIVE, stdin=-1) as worker:
                assert worker.stdin is not None and worker.stdout is not None
                printed = worker.stdout.readline() + worker.stdout.readline()
                until(lambda: not any(ring.unread_bytes for ring in here.look().rings), "all is read")
                _look_everywhere(here)
                os.kill(here.the_collector(), signal.SIGKILL)
                out, errors = worker.communicate("\n")
            for text in (printed, out, errors, here.command("status").stdout, str(here.status())):
                assert not any(secret in text for secret in (TOKEN, HEADER, MASKED))
            here.row.tried += 1
        assert "rejected a trace" in here.log() and "traces wait" in here.log()


def _look_everywhere(here: Scene) -> None:
    for root in (Path(here.runtime_dir), Path(here.settings["EPSAGON_STATE_DIR"])):
        for path in [root, *root.rglob("*")] if root.exists() else []:
            _look_at(path)
    for pid in here.collectors():
        process = Path(f"/proc/{pid}")
        said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        assert TOKEN.encode() not in said and HEADER.encode() not in said


def _look_at(path: Path) -> None:
    assert TOKEN not in path.name and MASKED not in path.name
    try:
        found = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return
    assert stat.S_IMODE(found.st_mode) == (0o700 if path.is_dir() else 0o600), path
    # A ring is memory and holds what was pushed; it goes with its process.
    if path.suffix != ".ring":
        assert MASKED.encode() not in content, path
    if path.name in ("log", "state", "start"):
        assert TOKEN.encode() not in content and HEADER.encode() not in content, path


# The opener's keys mask what another process adds, also if that is read first.
OPENER = """
import pickle, sys, epsagon_fast as epsagon, noting
epsagon.init(ignored_keys=("password",))
noting.fill(1)
print(flush=True)
sys.stdin.readline()
# More than a round reads.
noting.fill(20, 10_000)
with epsagon.trace("long") as tracer:
    print(pickle.dumps(tracer.handle()).hex(), flush=True)
    sys.stdin.readline()
assert epsagon.flush(60)
"""
ADDER = f"""
import pickle, sys, epsagon_fast as epsagon, noting
noting.fill(1)
print(flush=True)
handle = pickle.loads(bytes.fromhex(sys.stdin.readline()))
with epsagon.attach(handle) as tracer:
    for _ in range(3):
        noting.add(tracer, 10)
        tracer.add_event({{"id": "e", "resource": {{"metadata": {{"password": "{MASKED}"}}}}}})
print(flush=True)
sys.stdin.readline()
"""


def test_what_another_process_adds_is_masked_before_it_is_in_a_file() -> None:
    with scene("secrets: added before the trace's OPEN is read") as here:
        for _ in range(times(50, 2)):
            with here.start(ADDER, stdin=-1) as adder, here.start(OPENER, stdin=-1) as opener:
                _line(adder)
                _line(opener)
                until(lambda: here.gauge("rings") == 2, "both are known")
                collector = here.the_collector()
                os.kill(collector, signal.SIGSTOP)
                handle = _line(opener, "\n")
                _line(adder, handle)
                os.kill(collector, signal.SIGCONT)
                until(lambda: not any(ring.unread_bytes for ring in here.look().rings), "all is read")
                # While the trace is open its segment stays.
                journal = b"".join(path.read_bytes() for path in Path(here.folder).glob("journal-*"))
                assert journal.count(b'"password":"****"') >= 3 and MASKED.encode() not in journal
                if FULL:
                    os.kill(collector, signal.SIGKILL)
                assert adder.communicate("\n")[1] == ""
                assert opener.communicate("\n")[1] == ""
            here.row.tried += 1
        here.account()
        holds(here.row)
        assert not here.row.refused


def test_what_was_never_opened_is_in_no_file() -> None:
    script = f"""
import sys, epsagon_fast as epsagon, noting
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Kind
noting.fill(1)
secret = b'{{"id":"e","resource":{{"metadata":{{"password":"{MASKED}"}}}}}}'
for number in range(10):
    process.writers.known()[0].put(Kind.EVENT, 0, bytes([number + 1] * 16), secret)
assert epsagon.flush(60)
noting.fill(1)
print(flush=True)
sys.stdin.readline()
"""
    with scene("secrets: for a trace that was never opened") as here:
        with here.start(script, stdin=-1) as worker:
            _line(worker)
            until(lambda: here.counter("orphan") == 10, lambda: f"they are counted; {here.look()}")
            for path in Path(here.folder).iterdir():
                if path.suffix != ".ring" and path.is_file():
                    assert MASKED.encode() not in path.read_bytes()
            worker.communicate("\n")
        here.row.tried = 10
        here.account({})
        holds(here.row)


def test_a_certificate_that_fails_tells_no_secret(tmp_path: Path) -> None:
    with Server(tls=certificate(tmp_path)) as server, scene("secrets: TLS", url=server.url) as here:
        here.env["EPSAGON_TOKEN"] = TOKEN
        here.run("import noting; noting.fill(1)")
        until(lambda: here.gauge("stored") == 1, "it is stored")
        assert TOKEN not in here.log() and not server.requests
        here.row.tried = 1


def _line(process: "object", said: str = "") -> str:
    if said:
        process.stdin.write(said)  # type: ignore[attr-defined]
        process.stdin.flush()  # type: ignore[attr-defined]
    return str(process.stdout.readline())  # type: ignore[attr-defined]
