"""The folder that holds the rings: where it lies, who owns it, and who holds its lock.

A folder belongs to one effective user, one version of the package and one set of namespaces, so a deploy or a sandboxed
service gets a collector of its own. A folder that is not ours alone (another owner, open to others, a symbolic link) is
never used. A collector holds an exclusive flock on the folder for its life. The lock alone says that a collector lives.
"""

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from itertools import chain, islice

import epsagon_fast.private as private
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.config import MIN_RING_BYTES
from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import warn_once
from epsagon_fast.queue.layout import HEADER_BYTES
from epsagon_fast.queue.names import RING_ID_BYTES, RING_SUFFIX
from epsagon_fast.version import __version__

# The interpreter drops the built-in name before the application's last destructors run, and those may trace.
_open = open
SHARED_MEMORY = "/dev/shm"
# At most so many files are searched for another base of ours if a stranger has taken our name: he may have made
# millions of files, and the application waits for us.
MOST_LOOKED_AT = 10_000
# A ring may take one SPACE_SHARE-th of the space that its filesystem and the memory limit still allow: a full /dev/shm
# kills the application with SIGBUS, and a container has only 64 MiB of it.
SPACE_SHARE = 64
# For the controllers that a line of /proc/self/cgroup names (none: version 2): the directory of the groups, and the
# files with the memory limit and the memory used.
MEMORY_LIMITS = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current"),
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}
UNLIMITED_BYTES = 1 << 62
UNUSABLE = "no runtime directory can be used: "
PAGE_BYTES = 4096


class FolderUnusable(OSError):
    """No folder can be used. The text says which were tried and why each was refused."""


class Folder:
    """One folder of rings. Making the object makes a missing directory, and raises NotOurs if it is not ours."""

    def __init__(self, path: str) -> None:
        self.path = path
        fd = private.make_directory(path)
        self.inode = os.fstat(fd).st_ino
        os.close(fd)

    def still_there(self) -> bool:
        """Say whether the path still leads to the folder that was opened (logind and `rm -rf` take it away)."""
        try:
            return inode_of(os.fsencode(self.path)) == self.inode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            let_pass(error)
            # A process that has changed its user may not be allowed to look any more.
            return True

    def open(self) -> int:
        """Return a descriptor of the directory. FileNotFoundError if another one is in its place."""
        fd = private.open_directory(self.path)
        if os.fstat(fd).st_ino != self.inode:
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "another directory is in its place", self.path)
        return fd

    def is_held(self) -> bool:
        """Say whether a collector lives here. A folder that is gone has none."""
        try:
            return is_held(os.fsencode(self.path))
        except OSError as error:
            let_pass(error)
            # If it cannot be found out (no descriptor is free), it counts as held, so that no collector is started.
            return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

    def new_ring_name(self) -> str:
        """Return a random name that no other process can guess."""
        return os.urandom(RING_ID_BYTES).hex() + RING_SUFFIX

    def ring_capacity(self, wanted_bytes: int) -> int:
        """Return how many bytes a new ring may have here, at most `wanted_bytes`; 0: no room for the smallest ring."""
        free = os.statvfs(self.path)
        allowed = min(free.f_bavail * free.f_frsize, memory_headroom_bytes()) // SPACE_SHARE
        capacity = min(wanted_bytes, allowed, _largest_file_bytes()) // PAGE_BYTES * PAGE_BYTES
        return capacity if capacity >= MIN_RING_BYTES else 0


def resolve(runtime_dir: str | None) -> Folder:
    """Return this process's folder, and make it if it is missing.

    `runtime_dir`: the only base to try; None or "": shared memory, then the temporary directory. Raises FolderUnusable
    if no base can be used.
    """
    refused = []
    for place in [runtime_dir] if runtime_dir else places():
        try:
            base = place if runtime_dir else own_base(place)
            base_fd = private.make_directory(base, closed_to=_closed_to(runtime_dir))
            try:
                # Through the descriptor, because by now the path may lead to another user's directory.
                os.close(private.make_directory(instance_name(), dir_fd=base_fd))
            finally:
                os.close(base_fd)
            if runtime_dir:
                _warn_if_exposed(base)
            return Folder(os.path.join(base, instance_name()))
        except OSError as error:
            let_pass(error)
            refused.append(_refusal(place, error))
    raise FolderUnusable(errno.EACCES, UNUSABLE + "; ".join(refused))


def obstacle(runtime_dir: str | None) -> str | None:
    """Return in the words of `resolve` why it would refuse this base; None if nothing that exists is in the way.

    Nothing is created. Without a `runtime_dir` there is always another name to take.
    """
    if not runtime_dir:
        return None
    for path, closed_to in (
        (runtime_dir, private.WRITERS),
        (os.path.join(runtime_dir, instance_name()), private.OTHERS),
    ):
        try:
            os.close(private.open_directory(path, closed_to=closed_to))
        except FileNotFoundError:
            return None
        except OSError as error:
            let_pass(error)
            return UNUSABLE + _refusal(runtime_dir, error)
    return None


def _refusal(place: str, error: OSError) -> str:
    return f"{os.path.join(place, error.filename or '')}: {error.strerror or error}"


def _closed_to(runtime_dir: str | None) -> int:
    """Return the mode bits that a base must not have. One that the user made or named may be seen by others.

    `mkdir` and systemd's RuntimeDirectory= make it 0755. The folder in it has mode 0700.
    """
    return private.WRITERS if runtime_dir else private.OTHERS


def existing(runtime_dir: str | None) -> str | None:
    """Return the path of this process's folder if it exists; nothing is created.

    With a `runtime_dir` only that base is tried, and a folder there is returned even if it cannot be used: opening it
    then tells the user what is wrong.
    """
    if runtime_dir:
        path = os.path.join(runtime_dir, instance_name())
        return path if os.path.lexists(path) else None
    for base in chain.from_iterable(map(own_bases, places())):
        path = os.path.join(base, instance_name())
        if _is_ours(path):
            return path
    return None


def places() -> Iterator[str]:
    """Yield the directories that every user can write to, best first.

    Neither /run/user/<uid> nor a service's RuntimeDirectory is among them. They are deleted when the user's last login
    ends or the service stops, together with everything that was not delivered yet.
    """
    if os.path.isdir(SHARED_MEMORY):
        yield SHARED_MEMORY
    if private.acts_for_its_caller():
        # The caller's environment, such as TMPDIR, must not decide.
        yield "/tmp"
        return
    import tempfile  # costs more than this whole module, and is needed only where there is no shared memory

    try:
        temporary = tempfile.gettempdir()
    except OSError as error:  # a root without any directory to write to
        let_pass(error)
        return
    yield temporary


def own_base(place: str) -> str:
    """Return this user's directory in a place that every user can write to, and make it if it is missing.

    A stranger may have taken the name that he can guess. Then the directory has a random suffix, and this user's other
    processes find it because they own it. Two processes that make one at the same moment may each keep its own.
    """
    path = os.path.join(place, _base_name())
    try:
        os.close(private.make_directory(path))
    except private.NotOurs:
        found = own_bases(place)
        if not found:
            path = f"{path}-{os.urandom(8).hex()}"
            os.close(private.make_directory(path))
            found = own_bases(place) or [path]
        return found[0]
    return path


def own_bases(place: str) -> list[str]:
    """Return this user's directories in a place, in the order of preference."""
    first = os.path.join(place, _base_name())
    try:
        with os.scandir(place) as found:
            others = [each.path for each in islice(found, MOST_LOOKED_AT) if each.name.startswith(f"{_base_name()}-")]
    except OSError as error:
        let_pass(error)
        others = []
    return list(filter(_is_ours, [first, *sorted(others)]))


def beside(base: str) -> list[str]:
    """Return the directories in which this user's processes may have left folders: a base, and those of `own_base`."""
    place, name = os.path.split(base)
    return own_bases(place) if f"{name}-".startswith(f"{_base_name()}-") else [base]


def _base_name() -> str:
    return f"epsagon-fast-{os.geteuid()}"


def _is_ours(path: str) -> bool:
    try:
        os.close(private.open_directory(path))
    except OSError as error:
        let_pass(error)
        return False
    return True


def _warn_if_exposed(base: str) -> None:
    loose = private.exposed(base)
    if loose:
        warn_once(
            "exposed", "other users can rename what is in %s, and so take %s away", loose, base, about="the folder"
        )


def instance_name() -> str:
    """Return a folder's name, made of version and namespaces: processes that cannot see each other share no folder."""
    namespaces = (_namespace(kind) for kind in ("user", "pid", "mnt", "net"))
    return "-".join([__version__, *(n for n in namespaces if n)])


def is_memory(path: str) -> bool:
    """Say whether `path` is on tmpfs, where a write never waits for a disk. True if that cannot be found out."""
    kinds = filesystems(path)
    return not kinds or "tmpfs" in kinds or "ramfs" in kinds


def filesystems(path: str) -> list[str]:
    """Return the kind of file system of `path`, as /proc/self/mountinfo names it; [] if that cannot be found out."""
    try:
        device = os.stat(path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        with _open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            return [line.split(" - ", 1)[1].split()[0] for line in mounts if line.split()[2] == number]
    except (OSError, IndexError) as error:
        let_pass(error)
        return []


def _largest_file_bytes() -> int:
    """Return how large a ring may be by this process's file size limit. A larger file means a deadly SIGXFSZ."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return UNLIMITED_BYTES if most == resource.RLIM_INFINITY else max(0, most - HEADER_BYTES)


def memory_headroom_bytes() -> int:
    """Return how much memory this process's cgroup may still take; UNLIMITED_BYTES if it has no limit."""
    try:
        # UTF-8, whatever the names hold: using another codec for the first time imports it, and a child that another
        # thread forks meanwhile would wait for the end of that import for ever.
        with _open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
            groups = [line.rstrip("\n").split(":", 2)[1:] for line in lines]
    except OSError as error:
        let_pass(error)
        return UNLIMITED_BYTES
    return min((_headroom_bytes(*group) for group in groups), default=UNLIMITED_BYTES)


def _headroom_bytes(controllers: str, group: str) -> int:
    if controllers not in MEMORY_LIMITS:
        return UNLIMITED_BYTES
    root, most, now = MEMORY_LIMITS[controllers]
    # A container may see the group's name as on its host, but the group itself as the root.
    folder = root + group if os.path.isdir(root + group) else root
    try:
        return max(0, _number(f"{folder}/{most}") - _number(f"{folder}/{now}"))
    except (OSError, ValueError) as error:  # "max" is no number: not limited
        let_pass(error)
        return UNLIMITED_BYTES


def _number(path: str) -> int:
    with _open(path, encoding="utf-8") as file:
        return int(file.read())


def _namespace(kind: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{kind}").rpartition("[")[2].rstrip("]")
    except OSError as error:
        let_pass(error)
        return ""


def is_held(folder: bytes) -> bool:
    """Say whether a collector holds the folder's lock, in pure Python.

    The compiled function does the same in one call, so no fork of another thread can inherit the descriptor.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def inode_of(path: bytes) -> int:
    """Return the inode number of what a path leads to, in pure Python.

    The compiled function does the same and keeps the interpreter's lock, as the compiled `is_held` does: this process
    looks while the application records.
    """
    return os.stat(path, follow_symlinks=False).st_ino


def is_locked(fd: int) -> bool:
    """Say whether another descriptor has the exclusive lock of a file. This one has no lock afterwards."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


if implementation("start") == COMPILED:
    from epsagon_fast.queue._spawn import folder_is_held as is_held
    from epsagon_fast.queue._spawn import inode_of
