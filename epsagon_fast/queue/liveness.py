"""Finds out whether a process lives. The kernel reuses a pid, so a process is known by its pid and its start time.

A process that cannot be looked at is not taken for dead. /proc/<pid> cannot be read where it is mounted with hidepid,
under systemd's ProtectProc=invisible, or where there is no /proc. Then a process lives as long as its pid is taken, or
its file is open or mapped.
"""

import errno
import fcntl
import os

import epsagon_fast.private as private
from epsagon_fast.interrupts import let_pass

# The interpreter drops the built-in name before the application's last destructors run, and those may trace.
_open = open
LARGEST_PID = 2**31 - 1
# The bit of SIGKILL in a set of signals; POSIX gives it its number, 9.
KILLED = 1 << 9 - 1
# A flag of the kernel's, in field 9 of /proc/<pid>/stat.
PF_EXITING = 0x4


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; 0 if it has ended, None if that cannot be found out.

    It is field 22 of /proc/<pid>/stat (proc_pid_stat(5)), counted from the last ")", since the name may hold others.
    """
    try:
        with _open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError as error:
        let_pass(error)
        return None if _is_taken(pid) else 0
    # A zombie has ended and only waits to be reaped.
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def own_start_time() -> int:
    """Return when this process started; 0 if that cannot be found out."""
    return start_time(os.getpid()) or 0


def lives(pid: int, since: int) -> bool:
    """Say whether the process that started at `since` (0: unknown) lives. True if that cannot be found out."""
    found = start_time(pid)
    if found and since:
        return found == since
    return found != 0


def has_ended(pid: int, since: int, fd: int) -> bool:
    """Say whether the process that made a file has ended. If its start time cannot be compared, the file's use decides.

    `fd`: the caller's own open file, which does not count as a use. A pid whose start time is hidden may be reused.
    """
    found = start_time(pid)
    if found is not None and since:
        return found != since
    return found == 0 or is_unused(fd) is True


def is_ending(pid: int, since: int) -> bool:
    """Say whether a process has been killed, is ending or has ended. False if that cannot be found out.

    A process that has been killed keeps its locks until the kernel lets it run once more, which takes a while on a busy
    machine. Meanwhile the signal is pending (proc_pid_status(5)); later the kernel's flag says that it ends.
    """
    try:
        flags = int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[6])
        lines = _read(f"/proc/{pid}/status").splitlines()
    except (OSError, IndexError, ValueError) as error:
        let_pass(error)
        return not lives(pid, since)
    pending = [int(line.split()[1], 16) for line in lines if line.startswith((b"SigPnd:", b"ShdPnd:"))]
    is_killed = any(each & KILLED for each in pending)
    return is_killed or bool(flags & PF_EXITING) or not lives(pid, since)


def is_waited_for() -> bool:
    """Say whether our parent waits for its children and has no child but this process; False if that is unknown.

    Then only the end of this process can end the parent's wait.
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
    """Say whether a process has a file of this name mapped; None if that cannot be found out."""
    try:
        with _open(f"/proc/{pid}/maps", "rb") as regions:
            wanted = os.fsencode(name)
            return any(wanted in region for region in regions)
    except OSError as error:
        let_pass(error)
        return None


def _is_taken(pid: int) -> bool:
    """Say whether any process has this pid, even one that we may not look at."""
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
    """Say whether no other process, in any namespace, has this open file open or mapped; None if that is unknown.

    The kernel gives a write lease only on a file that no other process has open. It sends a signal if a process opens
    the file before the lease is given back: by default SIGIO, which is deadly, so here one that is ignored by default.
    """
    try:
        # Seldom needed, and the first trace imports it.
        import signal

        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        let_pass(error)
        return False if error.errno == errno.EAGAIN else None
    except (AttributeError, ImportError) as error:  # not Linux; the process lost its files before its first trace
        let_pass(error)
        return None
    return True


def is_open(dir_fd: int, name: str) -> bool:
    """Say whether a process, in any namespace, has a file open or mapped; False if that is unknown."""
    try:
        fd = private.open_file(name, os.O_RDWR, dir_fd=dir_fd)
    except OSError as error:
        let_pass(error)
        return False
    try:
        return is_unused(fd) is False
    finally:
        os.close(fd)
