"""Strangers: other users, nonsense in a ring, squatted names, hardly any memory. Refused; nobody else suffers."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from namespaces import readable_by_all, with_tmpfs
from places import give_away, times, until
from scenes import Scene, holds, scene
from waiting import TIMEOUT_S

from epsagon_fast import __version__
from epsagon_fast.queue import layout

TRIES = times(100, 4)
WORKERS = times(200, 60)

WORKER = """
import os, sys, noting, epsagon_fast as epsagon
from epsagon_fast.producer.process import process
print(noting.fill(3) or process.writers.known()[0]._ring.load(8), flush=True)
for _ in sys.stdin:
    noting.fill(5)
    print(epsagon.flush(float(sys.argv[1])), flush=True)
"""


@pytest.mark.parametrize("where", ["header", "data"])
def test_nonsense_in_a_ring_harms_no_other(where: str) -> None:
    with scene(f"random bytes in a ring's {where}", EPSAGON_SHUTDOWN_TIMEOUT_SEC="0.1") as here:
        chance = random.Random(where)
        scrap = here.paper / "of-no-account"
        scrap.mkdir()
        with here.start(WORKER, "5", stdin=-1) as honest:
            assert honest.stdin is not None and honest.stdout is not None
            honest.stdout.readline()
            (ring_of_honest,) = Path(here.folder).glob("*.ring")
            for _ in range(TRIES):
                with here.start(WORKER, "0.05", stdin=-1, env={"NOTES": str(scrap)}) as victim:
                    assert victim.stdin is not None and victim.stdout is not None
                    victim.stdout.readline()
                    (ring,) = [path for path in Path(here.folder).glob("*.ring") if path != ring_of_honest]
                    _scribble(ring, where, chance)
                    honest.stdin.write("\n")
                    honest.stdin.flush()
                    assert honest.stdout.readline() == "True\n", f"{here.look()}\n{here.log()}"
                    victim.stdin.write("\n\n")
                    victim.stdin.close()
                    # It may lose what it has, nothing else: it does not crash and is not held up.
                    assert victim.wait(60) == 0, victim.stderr
                here.row.tried += 1
                until(lambda: len(list(Path(here.folder).glob("*.ring"))) == 1, lambda: f"it is away: {here.log()}")
            out, errors = honest.communicate()
            assert honest.returncode == 0, out + errors
        here.account({})
        holds(here.row)
        assert here.look().incarnation == 1
        assert "secret-token" not in here.log()


def _scribble(ring: Path, where: str, chance: random.Random) -> None:
    size = ring.stat().st_size
    low, high = (0, layout.HEADER_BYTES) if where == "header" else (layout.HEADER_BYTES, size)
    with open(ring, "r+b", 0) as file:
        for _ in range(chance.choice((1, 20, 400))):
            # Half of it where the records and the words that matter are.
            file.seek(chance.choice((chance.randrange(low, high - 64), low + chance.randrange(600))))
            file.write(chance.randbytes(chance.choice((1, 8, 64))))


def test_files_that_are_no_rings_are_set_aside() -> None:
    with scene("a ring file of the wrong size or kind") as here:
        chance = random.Random(4)
        with here.start(WORKER, "5", stdin=-1) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdout.readline()
            folder = Path(here.folder)
            (own,) = folder.glob("*.ring")
            whole = own.read_bytes()
            for number in range(TRIES):
                path = folder / f"{number:032x}.ring"
                kind = number % 4
                if kind == 0:
                    path.write_bytes(whole[: chance.randrange(layout.HEADER_BYTES, len(whole))])
                elif kind == 1:
                    path.write_bytes(whole + bytes(chance.randrange(1, 5000)))
                elif kind == 2:
                    os.mkfifo(path)
                else:
                    path.symlink_to("/etc/passwd")
                worker.stdin.write("\n")
                worker.stdin.flush()
                assert worker.stdout.readline() == "True\n"
                until(lambda path=path: not os.path.lexists(path), lambda: f"it is set aside; {here.log()}")
                here.row.tried += 1
            worker.communicate()
        assert len(list(folder.glob("*.corrupt"))) == TRIES
        assert here.log().count("is set aside") == here.counter("corrupt_rings") == TRIES
        here.account({})
        holds(here.row)


DIRECTORIES = {
    "a symlinked directory": lambda path: path.symlink_to("/dev/shm"),
    "a directory that others can write to": lambda path: (path.mkdir(), path.chmod(0o777)),
    "a directory of another user": lambda path: (path.mkdir(0o700), give_away(path)),
    "a file in the place of a directory": lambda path: path.write_text(""),
}


NEED_ROOT = ("a directory of another user",)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.root] * (kind in NEED_ROOT)) for kind in DIRECTORIES]
)
def test_a_directory_that_is_not_ours_alone_is_refused(kind: str) -> None:
    script = "import logging; logging.basicConfig()\nimport noting\nfor _ in range(3): noting.fill(3)"
    with scene(f"runtime directory: {kind}") as here:
        for number in range(TRIES):
            path = here.scratch / f"runtime-{number}"
            DIRECTORIES[kind](path)
            with here.start(script, env={"EPSAGON_RUNTIME_DIR": str(path)}) as worker:
                _, errors = worker.communicate(timeout=TIMEOUT_S)
            assert worker.returncode == 0
            # Once, however often it traces.
            assert errors.count("tracing is off in this process") == 1, errors
            assert "secret-token" not in errors
            assert not path.is_dir() or not list(path.glob(f"{__version__}-*")), "nothing is made in it"
            here.row.tried += 1
        here.account({})
        holds(here.row)
        assert here.row.arrived == 0 and set(here.row.refused) == {"no_folder"}


IN_SHM = {"EPSAGON_RUNTIME_DIR": ""}
SHARED = "mode=1777,size="


@pytest.mark.root
def test_squatted_names_are_passed_by() -> None:
    script = """
import os, noting, epsagon_fast as epsagon
taken = ["/dev/shm/epsagon-fast-0", *(f"/dev/shm/epsagon-fast-0-{n}" for n in range(100))]
for name in taken:
    os.mkdir(name, 0o777)
    os.chown(name, 65534, 65534)
def other():
    noting.fill(5)
    assert epsagon.flush(60)
other()
# All processes of the user meet in the same place.
assert os.waitpid(noting.spawn(other), 0)[1] == 0
(ours,) = set(os.listdir("/dev/shm")) - {os.path.basename(name) for name in taken}
assert len(os.listdir("/dev/shm/" + ours)) == 1
assert not any(map(os.listdir, taken))
"""
    with scene("every name that can be guessed is squatted", on_disk=True) as here:
        _in_own_shm(here, script, "64m", max(1, TRIES // 4))
        holds(here.row)
        assert here.row.arrived == here.row.pushed


@pytest.mark.root
def test_a_process_that_changes_its_user_gets_a_folder_of_its_own() -> None:
    """As gunicorn's workers do; and the other user's processes cannot look into ours."""
    script = """
import os, noting, epsagon_fast as epsagon
def other():
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    noting.fill(5)
    assert epsagon.flush(60)
    try: os.listdir("/dev/shm/epsagon-fast-0")
    except PermissionError: pass
    else: raise AssertionError("it can look into another user's folder")
os.chmod(os.environ["NOTES"], 0o777)
noting.fill(5)
assert epsagon.flush(60)
assert os.waitpid(noting.spawn(other), 0)[1] == 0
assert sorted(os.listdir("/dev/shm")) == ["epsagon-fast-0", "epsagon-fast-65534"], os.listdir("/dev/shm")
"""
    with scene("another uid", on_disk=True) as here:
        for path in (here.paper, here.notes, here.scratch):
            path.chmod(0o777)
        _in_own_shm(here, script, "64m", max(1, TRIES // 4), then=readable_by_all())
        holds(here.row)
        assert here.row.arrived == here.row.pushed


MANY = """
import os, sys, noting, epsagon_fast as epsagon
from waiting import until
read, write = os.pipe()
def child():
    os.close(write)
    noting.fill(1)
    # Until all have come, and have what they get.
    os.read(read, 1)
    noting.fill(9)
pids = [noting.spawn(child) for _ in range(int(sys.argv[1]))]
until(lambda: len(os.listdir(os.environ["NOTES"])) >= len(pids), "all have come")
os.close(write)
codes = [os.waitpid(pid, 0)[1] for pid in pids]
# Whoever fills /dev/shm would be killed with SIGBUS.
assert not any(codes), codes
noting.fill(1)
assert epsagon.flush(60)
"""


@pytest.mark.root
@pytest.mark.parametrize("megabytes", [8, 64])
def test_a_small_shared_memory_is_never_filled(megabytes: int) -> None:
    with scene(f"{WORKERS} workers in a /dev/shm of {megabytes} MiB", on_disk=True) as here:
        _in_own_shm(here, MANY, f"{megabytes}m", times(5, 1), str(WORKERS))
        holds(here.row)
        assert set(here.row.refused) <= {"no_space", "queue_full"}
        assert here.row.arrived and (here.row.refused["no_space"] or megabytes > 8)


LONG = """
import os, epsagon_fast as epsagon, noting
least = 1.0
with noting.trace() as tracer:
    for _ in range(1500):
        assert noting.add(tracer, 10_000)
        noting.until_read()
        room = os.statvfs("/dev/shm")
        least = min(least, room.f_bavail / room.f_blocks)
assert epsagon.flush(60)
# The rest is the application's, which a full /dev/shm would kill.
assert least > 0.5, least
"""


@pytest.mark.root
@pytest.mark.parametrize("megabytes", [8, 64])
def test_a_long_trace_neither_fills_a_small_shared_memory_nor_is_it_dropped(megabytes: int) -> None:
    with scene(f"a trace of 15 MB in a /dev/shm of {megabytes} MiB", on_disk=True) as here:
        here.env["EPSAGON_MAX_TRACE_SIZE"] = "524288"
        _in_own_shm(here, LONG, f"{megabytes}m", times(5, 1))
        holds(here.row)
        assert here.row.arrived == here.row.pushed


GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT_BYTES = 128 << 20

# Takes nearly all that it may, traces, lets go of it, and traces again.
LIMITED = """
import os, sys, time, noting, epsagon_fast as epsagon
from epsagon_fast.queue import folder
with open(sys.argv[1] + "/cgroup.procs", "w") as group:
    group.write(str(os.getpid()))
ballast = []
while folder.memory_headroom_bytes() > 3 << 20:
    ballast.append(b"x" * (1 << 20))
noting.fill(5)
ballast.clear()
time.sleep(1.1)
noting.fill(5)
assert epsagon.flush(60)
"""

if os.access(GROUPS, os.W_OK):  # elsewhere no group can be made

    @pytest.mark.root
    def test_a_memory_limited_cgroup_is_not_filled_by_rings() -> None:
        with scene("a memory-limited cgroup") as here:
            here.env["EPSAGON_LINGER_SEC"] = "60"
            # The collector is started outside: it needs more than the group has.
            here.run("import noting; noting.fill(1)")
            group = GROUPS / f"epsagon-test-{os.getpid()}"
            group.mkdir()
            try:
                (group / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
                for _ in range(times(100, 1)):
                    here.run(LIMITED, str(group))
                    here.row.tried += 1
            finally:
                until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
                group.rmdir()
            here.account({})
            holds(here.row)
            assert here.row.refused == {"no_space": 5 * here.row.tried}


def _in_own_shm(here: Scene, script: str, size: str, tries: int, *arguments: str, then: Sequence[str] = ()) -> None:
    for _ in range(tries):
        # The notes lie elsewhere: its /dev/shm is not ours.
        program = with_tmpfs((SHARED + size, "/dev/shm"), pid=True, then=then)
        here.run(script, *arguments, program=program, env=IN_SHM, timeout_s=120)
        here.row.tried += 1
    here.account({})
