"""What belongs to this user alone is used; what another may have put there is refused."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from places import NOBODY, give_away

from epsagon_fast import private

READ = os.O_RDONLY
MAKE = os.O_RDWR | os.O_CREAT


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def second_name(path: Path) -> None:
    (path.parent / "first").write_text("")
    (path.parent / "first").chmod(0o600)
    os.link(path.parent / "first", path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def open_to_others(path: Path) -> None:
    path.write_text("")
    path.chmod(0o640)


TRAPS: dict[str, Callable[[Path], object]] = {
    "a link": lambda path: path.symlink_to("/etc/passwd"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a FIFO": lambda path: os.mkfifo(path, 0o600),
    "a socket": a_socket,
    "a directory": Path.mkdir,
    "readable by a group": open_to_others,
    "a hard link": second_name,
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("flags", [READ, os.O_WRONLY, MAKE])
def test_file_that_another_may_have_put_there_is_refused_without_waiting(tmp_path: Path, trap: str, flags: int) -> None:
    TRAPS[trap](tmp_path / "file")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(private.NotOurs):
        private.open_file(str(tmp_path / "file"), flags)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("beside", ["", *private.COMPANIONS])
@pytest.mark.parametrize("trap", TRAPS)
def test_database_is_refused_for_a_trap_in_its_place_or_beside_it(tmp_path: Path, trap: str, beside: str) -> None:
    if beside:
        private.own_database(str(tmp_path / "db"))
    TRAPS[trap](tmp_path / f"db{beside}")
    with pytest.raises(private.NotOurs):
        private.own_database(str(tmp_path / "db"))


@pytest.mark.root
@pytest.mark.parametrize("beside", ["", *private.COMPANIONS])
def test_database_of_another_user_is_refused(tmp_path: Path, beside: str) -> None:
    private.own_database(str(tmp_path / "db"))
    (tmp_path / f"db{beside}").touch(0o600)
    give_away(tmp_path / f"db{beside}")
    with pytest.raises(PermissionError, match=f"belongs to user {NOBODY}"):
        private.own_database(str(tmp_path / "db"))


def test_what_is_made_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = private.make_directory(str(tmp_path / "a/b/c"))
        os.close(private.open_file("file", MAKE, dir_fd=directory))
        os.close(private.make_directory("below", dir_fd=directory))
        private.own_database(str(tmp_path / "a/b/c/db"))
    finally:
        os.umask(before)
    made = {path: mode(tmp_path / "a/b" / path) for path in ("c", "c/file", "c/below", "c/db")}
    assert made == {"c": 0o700, "c/file": 0o600, "c/below": 0o700, "c/db": 0o600}
    # Or others could put something else in the place of all below.
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/b")) == (0o755, 0o755)
    os.close(directory)


def test_a_look_at_a_database_does_not_take_away_its_locks(tmp_path: Path) -> None:
    import fcntl

    private.own_database(str(tmp_path / "db"))
    with open(tmp_path / "db", "r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        private.own_database(str(tmp_path / "db"))
        pid = os.fork()
        if pid == 0:
            with open(tmp_path / "db", "r+b") as other:
                try:
                    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


LOOSE: dict[str, Callable[[Path], object]] = {
    "everybody's": lambda path: path.chmod(0o777),
    "a group's": lambda path: (os.chown(path, 0, NOBODY), path.chmod(0o770)),
    "another user's": give_away,
}
FIRM: dict[str, Callable[[Path], object]] = {
    "sticky": lambda path: path.chmod(0o1777),
    "readable": lambda path: path.chmod(0o755),
    "of a group of one's own": lambda path: path.chmod(0o770),
}


@pytest.mark.root
@pytest.mark.parametrize("kind", LOOSE)
def test_directory_that_others_may_take_away_is_named(tmp_path: Path, kind: str) -> None:
    between = tmp_path / "between"
    (between / "ours").mkdir(parents=True)
    LOOSE[kind](between)
    assert private.exposed(f"{between}/ours/folder") == str(between)
    # What leads there by a link is no better.
    (tmp_path / "link").symlink_to("between/../between/ours")
    assert private.exposed(f"{tmp_path}/link/folder") == str(between)


@pytest.mark.parametrize("kind", FIRM)
def test_directory_that_only_its_owner_may_take_away_will_do(tmp_path: Path, kind: str) -> None:
    between = tmp_path / "between"
    (between / "ours").mkdir(parents=True)
    FIRM[kind](between)
    assert private.exposed(f"{between}/ours/folder") is None


@pytest.mark.root
def test_link_of_another_user_is_no_way(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "theirs").symlink_to("/")
    os.chown(tmp_path / "theirs", NOBODY, NOBODY, follow_symlinks=False)
    assert private.exposed(f"{tmp_path}/theirs/tmp/folder") == f"{tmp_path}/theirs"


def test_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        private.exposed(f"{tmp_path}/a/folder")
