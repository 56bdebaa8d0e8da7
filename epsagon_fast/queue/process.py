"""Who a process is: a pid alone comes back, a pid with its start time does not. And whether any has a file."""

import errno
import fcntl
import os


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if it is not there or there is no /proc.

    Field 22 of /proc/<pid>/stat (proc_pid_stat(5)), counted behind the last ")", since the name before it may hold any.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    # A zombie has ended; it only waits to be reaped.
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def is_open(dir_fd: int, name: str) -> bool:
    """Say whether a process, of whatever namespace, has a file open or mapped. False where that cannot be told.

    The kernel gives a write lease only on a file that nobody else has open. It sends SIGIO if somebody opens it before
    the lease is given back.
    """
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    except AttributeError:  # not Linux
        return False
    finally:
        os.close(fd)
    return False
