"""The bell: both ways to ring it, and whatever lies in its place."""

import logging
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import give_away, loaded_anew
from rings import exit_code, in_child

from epsagon_fast.queue import _spawn
from epsagon_fast.queue.bell import LOOK, WAITS, Bell, ring_in
from epsagon_fast.queue.names import BELL

Ring = Callable[[bytes, bytes], bool]


@pytest.fixture(params=["compiled", "reference"])
def ring(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ring:
    if request.param == "compiled":
        return _spawn.ring
    monkeypatch.setenv("EPSAGON_FAST_IMPL", "reference")
    made: Ring = loaded_anew("epsagon_fast.queue.bell").ring
    return made


@pytest.fixture
def bell(folder_fd: int) -> Iterator[Bell]:
    made = Bell(folder_fd)
    yield made
    made.close()


def is_rung(bell: Bell) -> bool:
    return bool(select.select([bell.fd], [], [], 0)[0])


def test_who_listens_hears_what_was_rung(tmp_path: Path, bell: Bell, ring: Ring) -> None:
    path = os.fsencode(tmp_path / BELL)
    assert bell.is_public
    assert (is_rung(bell), bell.heard()) == (False, b"")
    assert ring(path, LOOK)
    assert ring(path, WAITS)
    assert is_rung(bell)
    assert bell.heard() == LOOK + WAITS
    assert (is_rung(bell), bell.heard()) == (False, b"")


def test_ringing_keeps_no_descriptor(tmp_path: Path, bell: Bell, ring: Ring) -> None:
    before = os.listdir("/proc/self/fd")
    for name in (BELL, "nothing"):
        ring(os.fsencode(tmp_path / name), LOOK)
    assert os.listdir("/proc/self/fd") == before


def test_full_bell_keeps_nobody_waiting(tmp_path: Path, bell: Bell, ring: Ring) -> None:
    path = os.fsencode(tmp_path / BELL)
    count = 0
    while ring(path, LOOK):
        count += 1
    assert count >= 1000
    while bell.heard():
        pass
    assert ring(path, WAITS)
    assert bell.heard() == WAITS


def test_bell_of_a_dead_collector_kills_and_holds_up_nobody(tmp_path: Path, folder_fd: int, ring: Ring) -> None:
    Bell(folder_fd).close()

    def rings_it() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        for _ in range(10):
            ring(os.fsencode(tmp_path / BELL), LOOK)

    assert exit_code(in_child(rings_it)) == 0
    after = Bell(folder_fd)
    assert (after.is_public, after.heard()) == (True, b"")
    assert ring(os.fsencode(tmp_path / BELL), WAITS)
    assert after.heard() == WAITS
    after.close()


def test_forked_child_rings_too(tmp_path: Path, bell: Bell, ring: Ring) -> None:
    assert exit_code(in_child(lambda: not ring(os.fsencode(tmp_path / BELL), WAITS))) == 0
    assert bell.heard() == WAITS


def in_place_of_the_bell(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_bytes(b"content")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        os.mkfifo(path.with_name("elsewhere"), 0o600)
        path.symlink_to("elsewhere")
    elif kind == "open to others":
        os.mkfifo(path, 0o600)
        path.chmod(0o620)
    elif kind == "another user's":
        os.mkfifo(path, 0o600)
        give_away(path)


@pytest.mark.parametrize(
    "kind",
    [
        *("nothing", "file", "directory", "link", "open to others"),
        pytest.param("another user's", marks=pytest.mark.root),
    ],
)
def test_what_is_no_bell_of_ours_is_not_written_to(tmp_path: Path, ring: Ring, kind: str) -> None:
    path = tmp_path / BELL
    in_place_of_the_bell(path, kind)
    listener = os.open(path, os.O_RDWR | os.O_NONBLOCK) if path.is_fifo() else -1
    assert not ring(os.fsencode(path), LOOK)
    if listener >= 0:
        with pytest.raises(BlockingIOError):
            os.read(listener, 1)
        os.close(listener)
    if kind == "file":
        assert path.read_bytes() == b"content"


@pytest.mark.parametrize("kind", ["file", "directory", "link", "open to others"])
def test_where_no_bell_can_be_made_only_this_process_can_ring(
    tmp_path: Path, folder_fd: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    in_place_of_the_bell(tmp_path / BELL, kind)
    with caplog.at_level(logging.WARNING):
        made = Bell(folder_fd)
    assert not made.is_public
    assert "no process can ring" in caplog.text
    os.write(made.ringing_fd, bytes([signal.SIGTERM]))
    assert made.heard() == bytes([signal.SIGTERM])
    made.close()


@pytest.mark.parametrize("kind", ["nothing", "file", "link", "another bell"])
def test_bell_that_is_taken_away_is_relied_on_no_more(
    tmp_path: Path, bell: Bell, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    bell.look()
    assert bell.is_public
    os.unlink(tmp_path / BELL)
    if kind == "another bell":
        os.mkfifo(tmp_path / BELL, 0o600)
    else:
        in_place_of_the_bell(tmp_path / BELL, kind)
    with caplog.at_level(logging.WARNING):
        bell.look()
        bell.look()
    assert not bell.is_public
    assert caplog.text.count("the bell was removed") == 1
    # Signals are heard all the same.
    os.write(bell.ringing_fd, bytes([signal.SIGTERM]))
    assert bell.heard() == bytes([signal.SIGTERM])


@pytest.mark.parametrize("folder", ["/nowhere", "with a\0NUL", "/" + "x" * 5000, ""])
def test_folder_that_cannot_be_has_no_bell(folder: str) -> None:
    ring_in(folder, LOOK)


def test_a_word_has_a_byte(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="byte"):
        _spawn.ring(os.fsencode(tmp_path), b"")
