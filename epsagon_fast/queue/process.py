"""Who a process is and whether it lives: a pid alone comes back, a pid with its start time does not.

Not to know is not to be dead. /proc/<pid> cannot be read where it is mounted with hidepid, under systemd's
ProtectProc=invisible, or where there is none; then it is enough that the pid is taken. Nor does a file that a process
has open or mapped belong to a dead one.
"""

import errno
import fcntl
import os
import signal

import epsagon_fast.private as private
from epsagon_fast.interrupts import let_pass

# The built-in name goes before the last destructors of the application run, and those may trace.
_open = open
LARGEST_PID = 2**31 - 1


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; 0 if it has ended, None if that cannot be told.

    Field 22 of /proc/<pid>/stat (proc_pid_stat(5)), counted behind the last ")", since the name before it may hold any.
    """
    try:
        with _open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError as error:
        let_pass(error)
        return None if _is_taken(pid) else 0
    # A zombie has ended; it only waits to be reaped.
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def own_start_time() -> int:
    """Return when this process started; 0 if that cannot be told."""
    return start_time(os.getpid()) or 0


def lives(pid: int, since: int) -> bool:
    """Say whether the process that started at `since` (0: unknown) is there. True where that cannot be told."""
    found = start_time(pid)
    if found and since:
        return found == since
    return found != 0


def has_ended(pid: int, since: int, fd: int) -> bool:
    """Say whether the process that made a file is gone. Where its start time does not tell, the file's use does.

    `fd`: the caller's own open file, which does not count. A pid that cannot be looked at may have come back.
    """
    found = start_time(pid)
    if found is not None and since:
        return found != since
    return found == 0 or is_unused(fd) is True


def is_waited_for() -> bool:
    """Say whether our parent does nothing but wait for its children, and has no other child. False: or cannot be told.

    Then it waits for us: whatever it called, no other child could end that.
    """
    parent = os.getppid()
    try:
        threads = [f"/proc/{parent}/task/{thread}/" for thread in os.listdir(f"/proc/{parent}/task")]
        children = [child for thread in threads for child in _read(thread + "children").split()]
        return children == [b"%d" % os.getpid()] and any(_read(thread + "wchan") == b"do_wait" for thread in threads)
    except OSError as error:
        let_pass(error)
        return False


def _read(path: str) -> bytes:
    with _open(path, "rb") as file:
        return file.read()


def maps(pid: int, name: str) -> bool | None:
    """Say whether a process has a file of this name mapped. None: cannot be told."""
    try:
        with _open(f"/proc/{pid}/maps", "rb") as regions:
            wanted = os.fsencode(name)
            return any(wanted in region for region in regions)
    except OSError as error:
        let_pass(error)
        return None


def _is_taken(pid: int) -> bool:
    """Say whether any process has this pid, whoever may look at it."""
    if not 0 < pid <= LARGEST_PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_unused(fd: int) -> bool | None:
    """Say whether no other process, of whatever namespace, has an open file open or mapped. None: cannot be told.

    The kernel gives a write lease only on a file that nobody else has open. It sends a signal if somebody opens the
    file before the lease is given back: by default SIGIO, which ends a process, so here one that is ignored.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        let_pass(error)
        return False if error.errno == errno.EAGAIN else None
    except AttributeError:  # not Linux
        return None
    return True


def is_open(dir_fd: int, name: str) -> bool:
    """Say whether a process, of whatever namespace, has a file open or mapped. False where that cannot be told."""
    try:
        fd = private.open_file(name, os.O_RDWR, dir_fd=dir_fd)
    except OSError as error:
        let_pass(error)
        return False
    try:
        return is_unused(fd) is False
    finally:
        os.close(fd)
