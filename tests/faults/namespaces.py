"""Filesystems and process trees of a test's own: nobody else sees the mounts, and they end with their processes."""

import sys
from pathlib import Path

# Mounts what its arguments say, then becomes the rest of them.
_SHELL = 'while [ "$1" != -- ]; do mount -t tmpfs -o "$1" tmpfs "$2" || exit 99; shift 2; done; shift; exec "$@"'


def with_tmpfs(*mounts: tuple[str, Path | str], pid: bool = False) -> list[str]:
    """Return the words before a Python script that mount a tmpfs, with options, on each directory.

    `pid`: it is process 1 as well, so nothing it starts outlives it.
    """
    words = ["unshare", "-m", *(["-p", "-f", "--mount-proc", "--kill-child"] if pid else [])]
    arguments = [str(word) for mount in mounts for word in mount]
    return [*words, "sh", "-c", _SHELL, "sh", *arguments, "--", sys.executable]
