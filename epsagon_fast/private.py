"""Files and directories that belong to this process's user alone: made so, or refused.

Another user may have put something under a name of ours: a link to one of our files, a FIFO that blocks its reader, a
file that he can read too. So a file is opened without following links and without waiting, and the open file is judged,
not its name. Anything that is not ours alone raises NotOurs, with a text that says what is wrong.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.interrupts import let_pass


class NotOurs(PermissionError):
    """The file or directory is another user's, open to others, or of another kind. `strerror` says which."""


# What a name may stand for.
FILE, DIRECTORY, FIFO = stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO
_OTHER_THAN = {FILE: "not a regular file", DIRECTORY: "not a directory", FIFO: "not a FIFO"}
OTHERS = 0o077
# The bits with which others can change what is in a directory. What we make in it is closed to them anyway.
WRITERS = 0o022
# Suffixes of the files that SQLite keeps beside a database. It uses existing ones without asking whose they are.
COMPANIONS = ("-wal", "-shm", "-journal")
# More links than this on one path are taken for a circle. The kernel has the same limit.
MOST_LINKS = 40
# The errors of open(2) for a link, a directory, a FIFO without a reader, a socket.
_OTHER_KINDS = (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENOTDIR, errno.ENXIO)
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_directory(path: str | bytes, *, dir_fd: int | None = None, closed_to: int = OTHERS) -> int:
    """Return a descriptor of a directory of ours, not a link to one. `closed_to`: bits that its mode must not have."""
    return _opened(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd, closed_to, DIRECTORY)


def make_directory(path: str, *, dir_fd: int | None = None, closed_to: int = OTHERS) -> int:
    """Make a directory, mode 0700, with its parents, unless it is there; return what `open_directory` does."""
    if dir_fd is None:
        _make_parents(os.path.dirname(os.path.abspath(path)))
    with suppress(FileExistsError):
        os.mkdir(path, 0o700, dir_fd=dir_fd)
    return open_directory(path, dir_fd=dir_fd, closed_to=closed_to)


def open_file(name: str, flags: int, *, dir_fd: int | None = None) -> int:
    """Return a descriptor of a regular file of ours alone. `flags`: as of os.open; O_CREAT makes it with mode 0600."""
    return _opened(name, flags, dir_fd, OTHERS)


def open_fifo(path: str | bytes, *, dir_fd: int | None = None) -> int:
    """Return a descriptor, for both directions, of a FIFO of ours alone."""
    return _opened(path, os.O_RDWR, dir_fd, OTHERS, FIFO)


def make_fifo(name: str, *, dir_fd: int) -> int:
    """Make a FIFO, mode 0600, unless it is there; return what `open_fifo` does."""
    with suppress(FileExistsError):
        os.mkfifo(name, 0o600, dir_fd=dir_fd)
    return open_fifo(name, dir_fd=dir_fd)


def own_database(path: str) -> None:
    """Make an empty file for SQLite, or check that the existing one and its companions are ours alone.

    Call this before connecting, and once more when SQLite has made the companions.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFELY, 0o600))
    # By name, not by descriptor: closing any descriptor of a database drops this process's locks on it.
    judge(os.lstat(path), path)
    for companion in COMPANIONS:
        with suppress(FileNotFoundError):
            judge(os.lstat(path + companion), path + companion)


def judge(found: os.stat_result, path: str | bytes, closed_to: int = OTHERS, kind: int = FILE) -> None:
    """Raise NotOurs unless this is a file of ours, of that kind. `closed_to`: bits its mode must not have."""
    is_directory = kind == DIRECTORY
    if stat.S_IFMT(found.st_mode) != kind:
        raise NotOurs(errno.EACCES, _OTHER_THAN[kind], path)
    if found.st_uid != os.geteuid():
        raise NotOurs(errno.EACCES, f"belongs to user {found.st_uid}, not to {os.geteuid()}", path)
    if found.st_mode & closed_to:
        allowed = (0o777 if is_directory else 0o666) & ~closed_to
        raise NotOurs(errno.EACCES, f"is open to others (its mode must be {allowed:04o})", path)
    if not is_directory and found.st_nlink > 1:
        raise NotOurs(errno.EACCES, "has a second name (a hard link)", path)


def may_change_user() -> bool:
    """Say whether this process can become another user or group: its real, effective and saved ones differ."""
    return len(set(_users())) > 1 or len(set(_groups())) > 1


def acts_for_its_caller() -> bool:
    """Say whether this program has rights that its caller lacks. Then its environment must not be trusted.

    A program that root started may act as another user for a while. Its environment is root's, so it is trusted.
    """
    (user, acting, *_), (group, acting_group, *_) = _users(), _groups()
    return _is_elevated() or (user != 0 and (user != acting or group != acting_group))


def _is_elevated() -> bool:
    if implementation("start") != COMPILED:
        return False
    from epsagon_fast.queue._spawn import is_elevated

    return is_elevated()


def _users() -> tuple[int, ...]:
    # macOS does not show the saved id.
    return os.getresuid() if hasattr(os, "getresuid") else (os.getuid(), os.geteuid())


def _groups() -> tuple[int, ...]:
    return os.getresgid() if hasattr(os, "getresgid") else (os.getgid(), os.getegid())


def exposed(path: str) -> str | None:
    """Return the first directory on the way to `path` in which other users may rename things; None: there is none.

    Such a user can replace everything below it, between our look at a file and our use of it. Directories that do not
    exist yet are left out.
    """
    trusted = (0, os.geteuid(), os.stat("/").st_uid)
    for place in _way(os.path.abspath(path)):
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            return None
        if found.st_uid not in trusted or (stat.S_ISDIR(found.st_mode) and _lets_others_rename(found)):
            return place
    return None


def judge_way(path: str) -> None:
    """Raise NotOurs if other users may rename things on the way to `path`.

    Call this before a directory is made there, too. Otherwise root would leave a directory of its own in the home of
    the user whose environment it has (`sudo -E`), or wherever a link of that user leads.
    """
    loose = exposed(path)
    if loose:
        raise NotOurs(errno.EACCES, f"others can rename what is in {loose}", path)


def _lets_others_rename(found: os.stat_result) -> bool:
    # Many systems give each user a group with the user's own number, and let it write to the user's directories.
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.geteuid())
    # In a sticky directory users may rename only their own files.
    return bool(by_group or found.st_mode & stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX


def _way(path: str) -> Iterator[str]:
    """Yield every directory and link that leads to a path, from the root on, without the path itself."""
    links = 0
    here, names = "/", path.split("/")[:0:-1]
    while names:
        yield here
        here = os.path.normpath(os.path.join(here, names.pop()))
        if names and os.path.islink(here):
            yield here
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.path.join(os.path.dirname(here), os.readlink(here))
            here, names = "/", names + target.split("/")[:0:-1]


def _make_parents(path: str) -> None:
    if not os.path.isdir(path):
        _make_parents(os.path.dirname(path))
        with suppress(FileExistsError):
            # A mode of our own, because some daemons have an umask of 0.
            os.mkdir(path, 0o755)


def _opened(path: str | bytes, flags: int, dir_fd: int | None, closed_to: int, kind: int = FILE) -> int:
    try:
        fd = os.open(path, flags | _SAFELY, 0o600, dir_fd=dir_fd)
    except OSError as error:
        let_pass(error)
        if error.errno not in _OTHER_KINDS:
            raise
        raise NotOurs(errno.EACCES, f"{_OTHER_THAN[kind]} (or a symbolic link)", path) from None
    try:
        judge(os.fstat(fd), path, closed_to, kind)
    except BaseException:
        os.close(fd)
        raise
    return fd
