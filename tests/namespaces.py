"""Filesystems and process trees of a test's own: nobody else sees the mounts, and they end with their processes."""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Mounts what its arguments say, then becomes the rest of them.
_SHELL = 'while [ "$1" != -- ]; do mount -t tmpfs -o "$1" tmpfs "$2" || exit 99; shift 2; done; shift; exec "$@"'

# Shows each tree that its arguments name to every user, then becomes the rest of them. The topmost directory that
# others may not enter is covered by an empty one, in which only the trees are to be seen.
_SHOW = """
import os, subprocess, sys, tempfile
from pathlib import Path

def mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True)

def show(kept, tree):
    if kept.is_dir() and not kept.stat().st_mode & 1:
        tree.mkdir(parents=True, exist_ok=True)
        for inner in kept.iterdir():
            show(inner, tree / inner.name)
    elif kept.is_symlink():
        tree.symlink_to(os.readlink(kept))
    elif kept.is_dir():
        tree.mkdir(parents=True)
        mount("--rbind", kept, tree)
    else:
        tree.touch()
        mount("--bind", kept, tree)

def closed(tree):
    return next((path for path in [*reversed(tree.parents), tree] if not path.stat().st_mode & 1), None)

end = sys.argv.index("--")
trees = {path: closed(path) for path in map(Path, sys.argv[1:end])}
trees = {path: cover for path, cover in trees.items() if cover and not trees.keys() & set(path.parents)}
aside = Path(tempfile.mkdtemp())
mount("-t", "tmpfs", "tmpfs", aside)
for number, path in enumerate(trees):
    (aside / str(number)).mkdir()
    mount("--rbind", path, aside / str(number))
for cover in set(trees.values()):
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", cover)
for number, path in enumerate(trees):
    show(aside / str(number), path)
subprocess.run(["umount", "-l", str(aside)], check=True)
aside.rmdir()
os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
"""


def with_tmpfs(*mounts: tuple[str, Path | str], pid: bool = False, then: Sequence[str] = ()) -> list[str]:
    """Return the words before a Python script that mount a tmpfs, with options, on each directory.

    `pid`: it is process 1 as well, so nothing it starts outlives it. `then`: what comes between the mounts and Python.
    """
    words = ["unshare", "-m", *(["-p", "-f", "--mount-proc", "--kill-child"] if pid else [])]
    arguments = [str(word) for mount in mounts for word in mount]
    return [*words, "sh", "-c", _SHELL, "sh", *arguments, "--", *then, sys.executable]


def readable_by_all() -> list[str]:
    """Return the words before a command that let every user run this interpreter and import what lies here.

    They may lie in a directory that others cannot enter, such as root's home or a fresh `mktemp -d`.
    """
    trees = dict.fromkeys(str(Path(path).resolve()) for path in (sys.base_prefix, sys.prefix, ROOT))
    return ["unshare", "-m", sys.executable, "-I", "-S", "-c", _SHOW, *trees, "--"]
