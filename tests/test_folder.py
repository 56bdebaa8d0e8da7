"""Which directory is used, and which never."""

import errno
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from places import give_away, loaded_anew

from epsagon_fast import __version__, private
from epsagon_fast.log import forget_warnings
from epsagon_fast.queue import _spawn
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue.folder import Folder, FolderUnusable


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /dev/shm; the temporary directory lies in it, too."""
    monkeypatch.setattr(folders, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def mine(number: int = 0) -> str:
    return f"epsagon-fast-{os.geteuid()}" + (f"-{number}" if number else "")


def test_folder_is_made_for_its_owner_alone(base: Path) -> None:
    before = os.umask(0)
    try:
        path = Path(folders.resolve(None).path)
    finally:
        os.umask(before)
    assert path.parent == base / mine()
    for directory in (path, path.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_folder_is_the_same_every_time(base: Path) -> None:
    assert folders.resolve(None).path == folders.resolve("").path == folders.existing(None)


def test_asking_what_is_there_makes_nothing(base: Path) -> None:
    assert folders.existing(None) is None
    assert list(base.iterdir()) == []


def test_name_tells_versions_and_namespaces_apart() -> None:
    version, *namespaces = folders.instance_name().split("-")
    assert version == __version__
    assert namespaces == [
        os.readlink(f"/proc/self/ns/{kind}").partition("[")[2][:-1] for kind in ("user", "pid", "mnt", "net")
    ]


def test_without_proc_the_name_is_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(folders.os, "readlink", no_proc)
    assert folders.instance_name() == __version__


def test_relative_runtime_directory_is_made_with_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(folders.resolve("a/b/c").path).is_dir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (Path.touch, "not a directory"),
    "a socket": (a_socket, "not a directory"),
    "a link to a directory": (lambda path: path.symlink_to("/"), "symbolic link"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "symbolic link"),
    "readable": (lambda path: (path.mkdir(), path.chmod(0o750)), "open to others"),
    "with others' execute": (lambda path: (path.mkdir(), path.chmod(0o701)), "open to others"),
}


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o750, 0o755])
def test_named_base_may_be_seen_by_others_and_its_folder_not(tmp_path: Path, mode: int) -> None:
    """`mkdir`, and systemd for a RuntimeDirectory, make it with mode 0755."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    found = folders.resolve(str(tmp_path / "run")).path
    assert Path(found).stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run").stat().st_mode & 0o777 == mode
    assert folders.obstacle(str(tmp_path / "run")) is None


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
@pytest.mark.parametrize("where", ["base", "instance"])
def test_base_that_others_can_write_to_is_refused_in_the_same_words_by_all(
    tmp_path: Path, mode: int, where: str
) -> None:
    base = tmp_path / "run"
    path = base if where == "base" else base / folders.instance_name()
    path.mkdir(parents=True)
    path.chmod(mode)
    with pytest.raises(FolderUnusable) as refused:
        folders.resolve(str(base))
    assert folders.obstacle(str(base)) == refused.value.strerror
    assert f"is open to others (its mode must be {'0755' if where == 'base' else '0700'})" in refused.value.strerror


def test_base_that_is_not_there_yet_is_no_obstacle(tmp_path: Path) -> None:
    assert folders.obstacle(str(tmp_path / "none")) is folders.obstacle(None) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", BAD)
def test_directory_that_is_not_ours_alone_is_passed_by(base: Path, kind: str) -> None:
    BAD[kind][0](base / mine())
    found = Path(folders.resolve(None).path)
    assert found.parent.name.startswith(f"{mine()}-")
    # All of this user's processes find the same one.
    assert str(found) == folders.existing(None) == folders.resolve(None).path


@pytest.mark.root
def test_whatever_names_strangers_take_tracing_goes_on(base: Path) -> None:
    base.chmod(0o1777)
    for name in (mine(), *(mine(number) for number in range(1, 200)), f"{mine()}-{'0' * 16}"):
        (base / name).mkdir()
        give_away(base / name)
    found = folders.resolve(None).path
    assert Path(found).parent.parent == base
    assert found == folders.resolve(None).path == folders.existing(None)


def test_what_was_left_under_the_other_name_is_beside_it(base: Path) -> None:
    first = Path(folders.resolve(None).path).parent
    first.chmod(0o755)
    second = Path(folders.resolve(None).path).parent
    assert first != second and folders.beside(str(second)) == [str(second)]
    first.chmod(0o700)
    # By a collector of either, since processes may have come before and after.
    assert folders.beside(str(second)) == folders.beside(str(first)) == [str(first), str(second)]
    # A directory that was named by the user is no one's neighbour.
    (base / "run").mkdir(0o700)
    assert folders.beside(str(base / "run")) == [str(base / "run")]


def test_flood_of_names_holds_up_no_process(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_LOOKED_AT", 3)
    for number in range(20):
        (base / mine(number)).touch()
    # It may be that the next one does not find it: then it has one of its own, and a collector.
    assert Path(folders.resolve(None).path).parent.parent == base


def test_what_is_made_below_a_base_that_is_exchanged_is_not_made_elsewhere(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a stranger who may rename what is beside the base."""
    (base / "run").mkdir(0o700)
    (base / "trap").mkdir(0o777)
    make = private.make_directory

    def exchanged(path: str, *, dir_fd: int | None = None, **closed: int) -> int:
        if dir_fd is not None:
            os.rename(base / "run", base / "away")
            os.rename(base / "trap", base / "run")
        return make(path, dir_fd=dir_fd, **closed)

    monkeypatch.setattr(private, "make_directory", exchanged)
    monkeypatch.setattr(Folder, "__init__", lambda self, path: private.judge(os.stat(path), path, is_directory=True))
    with pytest.raises(FolderUnusable):
        folders.resolve(str(base / "run"))
    assert list((base / "run").iterdir()) == []


def test_folder_in_whose_place_another_is_is_not_opened(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "f"))
    os.rename(tmp_path / "f", tmp_path / "away")
    (tmp_path / "f").mkdir(0o700)
    with pytest.raises(FileNotFoundError):
        folder.open()


def test_base_that_others_can_take_away_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forget_warnings()
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose").chmod(0o777)
    for _ in range(2):
        folders.resolve(str(tmp_path / "loose" / "run"))
    (record,) = caplog.records
    assert f"what is in {tmp_path}/loose" in record.getMessage()


@pytest.mark.parametrize("kind", [kind for kind in BAD if BAD[kind][1] != "open to others"])
def test_runtime_directory_that_is_no_directory_is_refused(tmp_path: Path, kind: str) -> None:
    make, said = BAD[kind]
    make(tmp_path / "base")
    with pytest.raises(FolderUnusable, match=said):
        folders.resolve(str(tmp_path / "base"))


def test_refusal_names_every_place_and_why(base: Path) -> None:
    base.chmod(0o1777)
    (base / "tmp").touch()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folders, "SHARED_MEMORY", "/proc")
        with pytest.raises(FolderUnusable) as refused:
            folders.resolve(None)
    assert refused.value.errno == errno.EACCES
    assert "/proc" in refused.value.strerror and str(base / "tmp") in refused.value.strerror


def test_lock_says_who_lives(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "f"))
    assert not folder.is_held()
    holder = folder.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert folder.is_held()
    os.close(holder)
    assert not folder.is_held()


def test_asking_takes_no_descriptor(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "f"))
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        folder.is_held()
    assert os.listdir("/proc/self/fd") == before


def test_folder_that_went_is_held_by_nobody_and_not_there(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "f"))
    assert folder.still_there()
    (tmp_path / "f").rmdir()
    assert not folder.still_there()
    assert not folder.is_held()


def test_folder_that_was_made_anew_is_another(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "f"))
    (tmp_path / "f").rename(tmp_path / "old")
    Folder(str(tmp_path / "f"))
    assert not folder.still_there()


def test_folder_at_which_nobody_may_look_any_more_counts_as_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path / "f"))

    def forbidden(path: bytes) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    # As after a setuid: nothing may be moved, since its collector goes on.
    monkeypatch.setattr(folders, "inode_of", forbidden)
    assert folder.still_there()


def test_where_it_cannot_be_told_a_collector_counts_as_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path / "f"))

    def no_descriptor(path: bytes) -> bool:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(folders, "is_held", no_descriptor)
    assert folder.is_held()


def test_names_of_rings_are_random(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "f"))
    names = {folder.new_ring_name() for _ in range(100)}
    assert len(names) == 100
    assert all(len(bytes.fromhex(name.removesuffix(".ring"))) == 16 for name in names)


MIB = 1 << 20


@pytest.mark.parametrize(
    ("free", "headroom", "wanted", "capacity"),
    [
        (1024 * MIB, 1 << 62, 512 * 1024, 512 * 1024),
        (16 * MIB, 1 << 62, 512 * 1024, 256 * 1024),
        (1024 * MIB, 16 * MIB, 512 * 1024, 256 * 1024),
        (4 * MIB, 1 << 62, 512 * 1024, 64 * 1024),
        (4 * MIB - 4096, 1 << 62, 512 * 1024, 0),
        (1024 * MIB, 0, 512 * 1024, 0),
        (1024 * MIB, 1 << 62, 100_000, 98_304),
    ],
)
def test_ring_takes_a_small_part_of_what_is_free_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, headroom: int, wanted: int, capacity: int
) -> None:
    folder = Folder(str(tmp_path / "f"))
    monkeypatch.setattr(folders.os, "statvfs", lambda path: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))
    monkeypatch.setattr(folders, "memory_headroom_bytes", lambda: headroom)
    assert folder.ring_capacity(wanted) == capacity


@pytest.mark.parametrize(("limit", "capacity"), [(-1, MIB), (300_000, 282_624), (80_000, 0), (0, 0)])
def test_ring_is_no_larger_than_a_file_of_this_process_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, capacity: int
) -> None:
    monkeypatch.setattr(folders.resource, "getrlimit", lambda number: (limit, -1))
    assert Folder(str(tmp_path / "f")).ring_capacity(MIB) == capacity


def test_shared_memory_is_memory_and_a_disk_is_not(tmp_path: Path) -> None:
    assert folders.is_memory("/dev/shm")
    assert folders.is_memory("/nonexistent"), "where it cannot be told nobody is warned"


def test_limit_of_memory_is_read_or_there_is_none() -> None:
    assert folders.memory_headroom_bytes() >= 0


@pytest.mark.parametrize("group", ["mine", "as/the/host/sees/it"])
@pytest.mark.parametrize(
    ("controllers", "most", "now", "headroom"),
    [
        ("", "5000", "2000", 3000),
        ("memory", "5000", "2000", 3000),
        ("memory", "5000", "7000", 0),
        ("", "max", "2000", folders.UNLIMITED_BYTES),
        ("cpu", "5000", "2000", folders.UNLIMITED_BYTES),
    ],
)
def test_limit_of_memory_is_that_of_the_own_group_in_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, controllers: str, most: str, now: str, headroom: int
) -> None:
    where = tmp_path / "mine" if group == "mine" else tmp_path
    where.mkdir(exist_ok=True)
    (where / "most").write_text(most + "\n")
    (where / "now").write_text(now + "\n")
    limits = dict.fromkeys(folders.MEMORY_LIMITS, (f"{tmp_path}/", "most", "now"))
    monkeypatch.setattr(folders, "MEMORY_LIMITS", limits)
    assert folders._headroom_bytes(controllers, group) == headroom


def test_without_any_directory_to_write_to_there_is_no_folder_and_none_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "SHARED_MEMORY", str(tmp_path / "nowhere"))
    # What Python tries in the end is the current directory.
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(FolderUnusable):
        folders.resolve(None)
    assert folders.existing(None) is None


def test_both_ways_to_ask_for_the_inode_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_FAST_IMPL", "reference")
    (tmp_path / "link").symlink_to(tmp_path)
    for ask in (_spawn.inode_of, loaded_anew("epsagon_fast.queue.folder").inode_of):
        for path in (tmp_path, tmp_path / "link"):
            assert ask(os.fsencode(path)) == os.lstat(path).st_ino
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ask(os.fsencode(tmp_path / "nowhere"))
        with pytest.raises(NotADirectoryError):
            ask(b"/proc/self/status/nowhere")


def test_both_ways_to_ask_for_the_lock_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_FAST_IMPL", "reference")
    ways = (_spawn.folder_is_held, loaded_anew("epsagon_fast.queue.folder").is_held)
    path = os.fsencode(tmp_path)
    for ask in ways:
        assert not ask(path)
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        for ask in ways:
            assert ask(path)
            with pytest.raises(FileNotFoundError):
                ask(path + b"/nowhere")
    finally:
        os.close(holder)
