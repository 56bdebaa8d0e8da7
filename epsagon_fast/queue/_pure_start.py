"""Starting a collector in pure Python; launch.py says what that means. _spawn.pyx does the same in one call."""

import errno
import fcntl
import os
import signal
from contextlib import ExitStack, suppress

import epsagon_fast.private as private
from epsagon_fast.queue.folder import is_locked
from epsagon_fast.queue.names import LOG, START, START_LOCK_FD

# The signals that the new program gets with their default action: those that the starter ignores would stay ignored.
SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def start(dir_fd: int, argv: list[bytes], env: list[bytes], although_held: bool) -> bool:
    """Start the program as an orphan, in pure Python: a shell starts it in the background and ends.

    Return False if another start is under way or a collector lives. The compiled function does the same in one call.
    """
    if private.may_change_user():
        # Only the compiled function can make the ids the same.
        raise PermissionError(errno.EPERM, "real, effective and saved users or groups are not the same")
    # An error now, because no answer comes back from what the shell runs in the background.
    os.stat(argv[0])
    with ExitStack() as opened:
        lock = _open_low(dir_fd, START, os.O_RDWR)
        opened.callback(os.close, lock)
        log = _open_low(dir_fd, LOG, os.O_WRONLY | os.O_APPEND)
        opened.callback(os.close, log)
        return _start_locked(dir_fd, argv, env, although_held, lock, log)


def _start_locked(dir_fd: int, argv: list[bytes], env: list[bytes], although_held: bool, lock: int, log: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # Asked again under the lock: a collector that another process has just started may hold the folder.
    if not although_held and is_locked(dir_fd):
        return False
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        (os.POSIX_SPAWN_DUP2, lock, START_LOCK_FD),
    ]
    shell = [b"/bin/sh", b"-c", b'cd /; umask 077; "$@" &', b"sh", *argv]
    variables = dict(item.split(b"=", 1) for item in env)
    pid = os.posix_spawn(
        "/bin/sh", shell, variables, file_actions=actions, setsid=True, setsigmask=[], setsigdef=SIGNALS
    )
    # The application's own os.wait() may already have reaped the shell.
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return True


def _open_low(dir_fd: int, name: str, flags: int) -> int:
    """Return a descriptor of a file in the folder, above the numbers that the new program's descriptors get."""
    low = private.open_file(name, flags | os.O_CREAT, dir_fd=dir_fd)
    try:
        return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, START_LOCK_FD + 1)
    finally:
        os.close(low)
