# cython: language_level=3, binding=False
"""Start a process that is an orphan; ask whether a folder's lock is held; ring its bell. Python side of spawn.h."""

from libc.stdlib cimport free, malloc

import os

from epsagon_fast.queue import names


cdef extern from "spawn.h":
    int EPS_NOT_NEEDED
    int AT_FDCWD
    int START_LOCK_FD
    const char *START_NAME
    const char *LOG_NAME
    int eps_folder_is_held(int dir_fd, const char *folder) noexcept
    int eps_inode(const char *path, unsigned long long *inode) noexcept
    int eps_ring(const char *path, char word) noexcept
    int eps_is_elevated() noexcept
    int eps_close_memory() noexcept
    int eps_start(int dir_fd, char **argv, char **envp, int although_held) noexcept


if (START_LOCK_FD, START_NAME.decode(), LOG_NAME.decode()) != (names.START_LOCK_FD, names.START, names.LOG):
    raise ImportError("names.py and spawn.h do not agree")


cdef char **pointers(list strings) except NULL:
    """Return a NULL-ended array of pointers into `strings`, which must stay alive as long as it is used."""
    cdef char **array = <char **>malloc((len(strings) + 1) * sizeof(char *))
    cdef Py_ssize_t i
    if array == NULL:
        raise MemoryError
    try:
        for i in range(len(strings)):
            array[i] = <bytes?>strings[i]
        array[len(strings)] = NULL
    except BaseException:
        free(array)
        raise
    return array


def folder_is_held(bytes folder not None):
    """Say whether some process holds the exclusive lock on `folder`. OSError if it cannot be opened."""
    cdef int held = eps_folder_is_held(AT_FDCWD, folder)
    if held < 0:
        raise OSError(-held, os.strerror(-held), os.fsdecode(folder))
    return held == 1


def inode_of(bytes path not None):
    """Return the inode number of what a path leads to, of a link itself. OSError if that is nothing."""
    cdef unsigned long long inode = 0
    cdef int result = eps_inode(path, &inode)
    if result < 0:
        raise OSError(-result, os.strerror(-result), os.fsdecode(path))
    return inode


def ring(bytes path not None, bytes word not None):
    """Write the first byte of `word` into the FIFO `path`, if it is one of ours. Return whether that was done."""
    if not word:
        raise ValueError("a word has a byte")
    return eps_ring(path, (<const char *>word)[0]) != 0


def is_elevated():
    """Say whether this program was started as another user or group than its caller's (setuid, setgid)."""
    return eps_is_elevated() != 0


def close_memory():
    """Let this process leave no core file, and no other process of its user look into it. OSError if that fails."""
    cdef int result = eps_close_memory()
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def start(int dir_fd, list argv not None, list env not None, bint although_held):
    """Start `argv` in a session of its own, with stdout and stderr on the folder's log, and the start lock as descriptor.

    dir_fd: the folder's. argv, env: bytes. although_held: also if some process holds the folder, since it is leaving.
    Return False if another process is starting one, or (else) holds the folder. OSError if it could not be started.
    """
    cdef char **arguments = pointers(argv)
    cdef char **variables = NULL
    cdef int result
    try:
        variables = pointers(env)
        result = eps_start(dir_fd, arguments, variables, although_held)
    finally:
        free(arguments)
        free(variables)
    if result < 0:
        # Any of three may be what cannot be used.
        raise OSError(-result, f"{os.strerror(-result)}: `start` or `log` in its folder, or {os.fsdecode(argv[0])}")
    return result != EPS_NOT_NEEDED
