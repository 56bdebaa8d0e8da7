"""The ring between real processes: floods, kills, forks. The reference does less of each, being slower."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import times
from rings import COMPILED, TRACE, Twin, child, exit_code, payloads
from waiting import TIMEOUT_S, until

from epsagon_fast.protocol import Kind
from epsagon_fast.queue import ring

# Not a divisor of any ring, so each comes to lie everywhere, and never on its own bytes of the last lap.
LAP = [random.Random(number).randbytes(number % 61) for number in range(4099)]


def patient_push(producer: Any, payload: bytes) -> None:
    while producer.push(Kind.EVENT, 0, TRACE, payload) == ring.FULL:
        os.sched_yield()


def flood(producer: Any, laps: int) -> None:
    push = producer.push
    for _ in range(laps):
        for payload in LAP:
            while push(2, 0, TRACE, payload) == 2:
                os.sched_yield()


def count_for_ever(producer: Any) -> None:
    """Push 0, 1, 2... as text of varying length, until killed."""
    number = 0
    while True:
        patient_push(producer, b"%d " % number * (number % 40 + 1))
        number += 1


def number_in(payload: bytes) -> int:
    """Return the number of such a record, having looked at each of its bytes."""
    numbers = set(payload.split())
    assert len(numbers) == 1, payload
    number = int(numbers.pop())
    assert len(payload.split()) == number % 40 + 1
    return number


def batches(consumer: Any, limit_bytes: int = 1 << 20) -> Iterator[list[bytes]]:
    """Read and commit whenever there is something."""
    while True:
        yield until(lambda: payloads(consumer, limit_bytes), "records come", pause_s=0)


@pytest.mark.parametrize(
    ("capacity", "records"), [(1 << 19, times(10_000_000, 500_000)), (1024, times(1_000_000, 300_000))]
)
def test_all_of_very_many_records_arrive_in_order(twin: Twin, tmp_path: Path, capacity: int, records: int) -> None:
    """In the small ring both sides meet at each other's heels all the time: what a wrong order of stores breaks."""
    laps = records // (1 if twin is COMPILED else 200) // len(LAP) + 1
    fd = twin.ring(tmp_path, capacity)
    consumer = twin.consumer(fd)
    expected, received, checksum = LAP * 5, 0, 0
    with child(lambda: flood(twin.producer(fd), laps)) as pid:
        for batch in batches(consumer):
            place = received % len(LAP)
            assert batch == expected[place : place + len(batch)]
            checksum = zlib.crc32(b"".join(batch), checksum)
            received += len(batch)
            if received == laps * len(LAP):
                break
        assert exit_code(pid) == 0
    assert consumer.read(1) == []
    whole = 0
    for _ in range(laps):
        whole = zlib.crc32(b"".join(LAP), whole)
    assert checksum == whole
    os.close(fd)


def test_a_killed_producer_leaves_whole_records_only(twin: Twin, tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(60 if twin is COMPILED else 15):
        fd = twin.ring(tmp_path, chance.choice((1024, 4096, 1 << 16)))
        consumer = twin.consumer(fd)
        last, stop_at = -1, chance.randrange(2000)
        with child(lambda fd=fd: count_for_ever(twin.producer(fd))) as pid:
            for batch in batches(consumer):
                last = follow(last, batch)
                if last >= stop_at:
                    break
            os.kill(pid, signal.SIGKILL)
            assert exit_code(pid) == -signal.SIGKILL
        while batch := payloads(consumer):
            last = follow(last, batch)
        assert not consumer.stuck
        assert consumer.position == consumer.head
        os.close(fd)


def follow(last: int, batch: list[bytes]) -> int:
    """Check that a batch goes on after record `last`; return its own last."""
    assert [number_in(payload) for payload in batch] == list(range(last + 1, last + 1 + len(batch)))
    return last + len(batch)


def test_after_a_killed_reader_the_next_goes_on_from_tail(twin: Twin, tmp_path: Path) -> None:
    """Each reader writes down what it read before it commits, as the collector's journal does."""
    chance = random.Random(7)
    fd = twin.ring(tmp_path, 4096)
    log = tmp_path / "log"
    log.touch()

    def read_for_ever() -> None:
        consumer = twin.consumer(fd)
        with log.open("ab", buffering=0) as file:
            while True:
                start, batch = consumer.position, consumer.read(500)
                if batch:
                    numbers = " ".join(str(number_in(record[4])) for record in batch)
                    file.write(f"\n{start} {consumer.position} {numbers};".encode())
                consumer.commit()

    with child(lambda: count_for_ever(twin.producer(fd))):
        for _ in range(25):
            goal = log.stat().st_size + chance.randrange(1, 20000 if twin is COMPILED else 2000)
            with child(read_for_ever) as reader:
                until(lambda goal=goal: log.stat().st_size >= goal, "the reader reads", pause_s=0)
                os.kill(reader, signal.SIGKILL)
                assert exit_code(reader) == -signal.SIGKILL
    read_up_to = last = 0
    expected = 0
    for line in log.read_text().splitlines():
        if not line.endswith(";"):
            # Killed in the middle of its write, so it committed nothing.
            continue
        start, read_up_to_now, *numbers = map(int, line[:-1].split())
        # Only what was read and not committed is read again, and that from its start.
        assert start <= read_up_to
        fresh = [number for number in numbers if number >= expected]
        assert fresh == list(range(expected, expected + len(fresh)))
        assert (start == read_up_to) == (fresh == numbers)
        expected += len(fresh)
        read_up_to, last = read_up_to_now, numbers[-1]
    assert last + 1 == expected > 25
    os.close(fd)


def python_fork() -> int:
    return os.fork()


def c_fork() -> int:
    """Fork as uWSGI does: Python is not told. PyDLL, since the child has nobody who would give it the GIL back."""
    return int(ctypes.PyDLL(None).fork())


@pytest.mark.parametrize("fork", [python_fork, c_fork])
def test_a_forked_child_writes_nothing_into_its_parents_ring(twin: Twin, tmp_path: Path, fork: Any) -> None:
    producer, consumer = twin.ends(tmp_path)
    other = twin.ring(tmp_path)
    assert producer.push(Kind.EVENT, 0, TRACE, b"before") == ring.PUSHED
    pid = fork()
    if not pid:
        os._exit(_check_child(twin, producer, other, fork))
    assert producer.push(Kind.EVENT, 0, TRACE, b"beside") == ring.PUSHED
    assert exit_code(pid) == 0
    assert not producer.foreign
    assert producer.push(Kind.EVENT, 0, TRACE, b"after") == ring.PUSHED
    assert payloads(consumer) == [b"before", b"beside", b"after"]
    assert payloads(twin.consumer(other)) == [b"child"]
    os.close(other)


def _check_child(twin: Twin, inherited: Any, other: int, fork: Any) -> int:
    """Return 0 if all is as it should be in a child, else the number of the step that failed."""

    def is_refused(producer: Any) -> bool:
        return producer.foreign and producer.push(Kind.EVENT, 0, TRACE, b"child") == ring.FOREIGN

    if not is_refused(inherited):
        return 1
    own = twin.producer(other)
    if own.foreign or own.push(Kind.EVENT, 0, TRACE, b"child") != ring.PUSHED:
        return 2
    if not is_refused(inherited) or inherited.put_bye() != ring.FOREIGN:
        return 3
    grandchild = fork()
    if not grandchild:
        os._exit(0 if is_refused(own) and is_refused(inherited) else 1)
    return 4 if exit_code(grandchild) else 0


@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"])
def test_forks_are_noticed_where_the_kernel_cannot_wipe_a_page(tmp_path: Path, fork: str) -> None:
    script = f"""
import ctypes, importlib.util, os, shutil, sys
from pathlib import Path
from rings import TRACE, Twin, exit_code
from epsagon_fast.queue import _ring
# The package's own copy watches with a page since it was imported. This one has its own variables.
copy = shutil.copy(_ring.__file__, sys.argv[1])
spec = importlib.util.spec_from_file_location("_ring", copy)
hooked = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hooked)
wiped = wiped_pages()
hooked.watch_forks(may_wipe=False)
twin = Twin("hooked", hooked.Mapping, hooked.Producer, hooked.Consumer, False)
producer, consumer = twin.ends(Path(sys.argv[1]))
pid = {fork}()
if not pid:
    own, _ = twin.ends(Path(sys.argv[1]))
    os._exit(producer.push(2, 0, TRACE, b"") * 10 + own.push(2, 0, TRACE, b""))
assert producer.push(2, 0, TRACE, b"") == 0
assert wiped_pages() == wiped
print(exit_code(pid), len(consumer.read(1000)))
"""
    flags = (
        "def wiped_pages():\n"
        "    lines = open('/proc/self/smaps').read().splitlines()\n"
        "    return sum('wf' in line.split() for line in lines if line.startswith('VmFlags'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", flags + script, tmp_path],
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parent)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.stdout, done.stderr) == (f"{ring.FOREIGN * 10} 1\n", "")


def test_forks_beside_a_pushing_thread_tear_nothing(twin: Twin, tmp_path: Path) -> None:
    """The child is copied at any moment of another thread's push; neither side may suffer."""
    producer, consumer = twin.ends(tmp_path, 1 << 16)
    stop = threading.Event()
    pushed = []

    def push() -> None:
        number = 0
        while not stop.is_set():
            patient_push(producer, b"%d " % number * (number % 40 + 1))
            number += 1
        pushed.append(number)

    thread = threading.Thread(target=push)
    thread.start()
    last = -1
    try:
        for _ in range(30):
            with child(lambda: producer.push(Kind.EVENT, 0, TRACE, b"child")) as pid:
                last = follow(last, payloads(consumer))
                assert exit_code(pid) == ring.FOREIGN
    finally:
        stop.set()
        while thread.is_alive():
            last = follow(last, payloads(consumer))
    assert follow(last, payloads(consumer)) + 1 == pushed[0]


def test_threads_of_one_process_share_a_ring(twin: Twin, tmp_path: Path) -> None:
    # Large enough for all that the reference pushes: where there is no room, it may learn so after it has answered.
    producer, consumer = twin.ends(tmp_path, 1 << 20)
    count = 20_000 if twin is COMPILED else 1000

    def push(name: bytes) -> None:
        for number in range(count):
            patient_push(producer, b"%s %d" % (name, number))

    threads = [threading.Thread(target=push, args=(name,)) for name in (b"a", b"b", b"c", b"d")]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        seen: list[bytes] = []
        while any(thread.is_alive() for thread in threads):
            seen += payloads(consumer)
    finally:
        sys.setswitchinterval(before)
    seen += payloads(consumer)
    for name in (b"a", b"b", b"c", b"d"):
        own = [payload for payload in seen if payload.startswith(name)]
        assert own == [b"%s %d" % (name, number) for number in range(count)]
    assert len(seen) == 4 * count
