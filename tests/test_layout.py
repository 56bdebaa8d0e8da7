"""The ring's file: how it is made, what is refused as one, and which implementation maps it."""

import errno
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rings import Twin, child, exit_code
from waiting import TIMEOUT_S

from epsagon_fast.protocol import CLOSE_PAYLOAD, REFUSALS, Kind
from epsagon_fast.queue import layout, ring


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A folder's descriptor."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def create(folder: int, capacity: int = 1024) -> int:
    return ring.create(folder, "a.ring", capacity, pid=123, start_time=456)


def test_a_new_ring_is_private_reserved_and_described(folder: int, tmp_path: Path) -> None:
    fd = create(folder, 65536)
    state = os.fstat(fd)
    assert stat.S_IMODE(state.st_mode) == 0o600
    assert state.st_size == layout.HEADER_BYTES + 65536
    assert state.st_blocks * 512 >= state.st_size
    assert not os.get_inheritable(fd)
    start = struct.unpack("=6Q", os.pread(fd, 48, 0))
    checksummed = ring.IMPLEMENTATION == "reference"
    assert start == (layout.MAGIC_VALUE, layout.LAYOUT_VERSION, 65536, 123, 456, checksummed)
    assert int.from_bytes(os.pread(fd, 8, layout.CREATED_NS), sys.byteorder) <= time.time_ns()
    assert not any(os.pread(fd, state.st_size, 56))
    os.close(fd)
    assert os.listdir(tmp_path) == ["a.ring"]


def test_a_ring_is_made_where_there_is_no_fallocate(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    for _ in range(2):
        fd = create(folder, 1 << 18)
        assert os.fstat(fd).st_size == layout.HEADER_BYTES + (1 << 18)
        assert os.fstat(fd).st_blocks * 512 >= 1 << 18
        os.close(fd)
        (tmp_path / "a.ring").unlink()
        monkeypatch.delattr(os, "posix_fallocate", raising=False)


def test_a_name_that_is_taken_or_a_link_is_left_alone(folder: int, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    for make in (lambda path: path.symlink_to(tmp_path / "victim"), lambda path: path.write_text("mine")):
        path = tmp_path / "a.ring"
        make(path)
        with pytest.raises(FileExistsError):
            create(folder)
        assert path.read_text() in ("mine", "precious")
        path.unlink()


@pytest.mark.parametrize("capacity", [0, -1024, 1016, 1028, (1 << 30) + 8])
def test_a_capacity_that_no_ring_may_have_makes_no_file(folder: int, tmp_path: Path, capacity: int) -> None:
    with pytest.raises(ValueError, match="must be a multiple of 8"):
        create(folder, capacity)
    assert os.listdir(tmp_path) == []


def test_no_ring_is_left_where_there_is_no_room(folder: int, tmp_path: Path) -> None:
    """As on Docker's 64 MiB /dev/shm: told at creation, not by SIGBUS later."""

    def make_in_too_little_room() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            create(folder, 1 << 16)
        except OSError as error:
            return error.errno or 0
        return 0

    with child(make_in_too_little_room) as pid:
        assert exit_code(pid) == errno.EFBIG
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("slot", "value", "text"),
    [
        (layout.MAGIC, 7, "magic is 0x7"),
        (layout.MAGIC, 0, "no header yet"),
        (layout.VERSION, 3, "layout version is 3, not 2"),
        (layout.CAPACITY, 2**63, "capacity is 9223372036854775808 bytes"),
        (layout.CAPACITY, 1020, "capacity is 1020 bytes"),
        (layout.CAPACITY, 2048, r"the file has 17408 bytes, not 16384 \+ 2048"),
    ],
)
def test_a_wrong_header_is_named(twin: Twin, tmp_path: Path, slot: int, value: int, text: str) -> None:
    fd = twin.ring(tmp_path)
    os.pwrite(fd, struct.pack("=Q", value), slot)
    for end in (twin.producer, twin.consumer):
        with pytest.raises(ring.CorruptRing, match=text) as caught:
            end(fd)
        assert isinstance(caught.value, ring.UnfinishedRing) == (slot == layout.MAGIC and not value)
    os.close(fd)


@pytest.mark.parametrize("length", [0, 8, 47, 16384, 17407, 17409])
def test_a_file_of_another_length_is_no_ring(twin: Twin, tmp_path: Path, length: int) -> None:
    fd = twin.ring(tmp_path)
    os.ftruncate(fd, length)
    for end in (twin.producer, twin.consumer):
        with pytest.raises(ring.CorruptRing) as caught:
            end(fd)
        assert isinstance(caught.value, ring.UnfinishedRing) == (length < 48)
    os.close(fd)


def test_the_layout_has_room_for_what_the_protocol_says() -> None:
    assert len(REFUSALS) <= layout.REFUSED_SLOTS
    assert max(Kind) < layout.END == layout.LAST_KIND
    assert len(layout.FREE_SHIFTS) == layout.LAST_KIND + 1
    # CLOSE is `<di`.
    assert CLOSE_PAYLOAD.size <= layout.LARGEST_CLOSE_BYTES


def picked(forced: str, before: str = "") -> str:
    """Return the name of the Producer in a new interpreter, or its last words."""
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\nfrom epsagon_fast.queue import ring\nprint(ring.Producer.__name__)"],
        env=dict(os.environ, EPSAGON_FAST_IMPL=forced),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_the_environment_can_force_an_implementation() -> None:
    assert picked("") == picked("compiled") == "Producer"
    assert picked("reference") == "PureProducer"
    assert picked("fast").startswith("ValueError: EPSAGON_FAST_IMPL is 'fast', must be compiled or reference")


def test_without_the_extension_the_reference_is_used_unless_compiled_is_forced() -> None:
    unbuilt = "import sys; sys.modules['epsagon_fast.queue._ring'] = None"
    assert picked("", unbuilt) == "PureProducer"
    assert "ModuleNotFoundError" in picked("compiled", unbuilt)
