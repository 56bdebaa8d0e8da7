"""Try the wheels in wheelhouse/ in fresh environments, with no compiler on the PATH and no source tree near.

`python release/prove_wheel.py`, after make_wheel.py. Every CPython from 3.11 on that is on the PATH or under
~/.pyenv/versions gets an environment with the wheel, runs smoke.py, and the trimmer's tests from a copy of tests/. The
wheel without compiled modules is tried on the newest of them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).resolve().parents[1]
WHEELHOUSE = SOURCES / "wheelhouse"
# What one version accepts says little about the stable ABI.
FEWEST_VERSIONS = 2
OLDEST = (3, 11)
TESTED_WITH = ("pytest", "pytest-timeout", "pytest-benchmark", "hypothesis")
# Two at a time: more would fight for the processors, and time out.
AT_ONCE = 2
ASK = """
import json, sys, sysconfig
print(json.dumps([sys.implementation.name, sys.version_info[:3], bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
                  sys.base_prefix, sys.executable]))
"""


class Interpreter(NamedTuple):
    """A CPython on this machine."""

    version: tuple[int, ...]
    base: str
    path: str


class Failed(Exception):
    """What a program printed before it failed."""


def main() -> int:
    """Try all of them and return the exit code."""
    found = list(interpreters())
    if len({python.version[:2] for python in found}) < FEWEST_VERSIONS:
        print(f"only {found} here: {FEWEST_VERSIONS} versions of CPython from 3.11 on are needed", file=sys.stderr)
        return 1
    (wheel,) = WHEELHOUSE.glob("*.whl")
    (pure,) = WHEELHOUSE.glob("pure/*.whl")
    tries = [(python, wheel, "compiled") for python in found] + [(found[-1], pure, "reference")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = [pool.submit(prove, *arguments) for arguments in tries]
        for (python, tried, _), result in zip(tries, results, strict=True):
            print(f"\n== {tried.name} on {python.path}\n{result.exception() or result.result()}", flush=True)
    return 1 if any(result.exception() for result in results) else 0


def interpreters() -> Iterator[Interpreter]:
    """Yield each CPython that takes the wheel, once, oldest first."""
    folders = [*map(Path, os.environ["PATH"].split(os.pathsep)), *Path.home().glob(".pyenv/versions/*/bin")]
    paths = [
        path for folder in folders for path in folder.glob("python3*") if re.fullmatch(r"python3(\.\d+)?", path.name)
    ]
    asked = {
        (*interpreter.version, interpreter.base): interpreter for path in reversed(paths) for interpreter in ask(path)
    }
    yield from sorted(asked.values())


def ask(path: Path) -> Iterator[Interpreter]:
    """Yield what a program says of itself, if it is a CPython that takes the wheel."""
    try:
        done = subprocess.run([path, "-c", ASK], capture_output=True, text=True)
    except OSError:  # a link that leads nowhere
        return
    # pyenv's stand-ins fail for versions that are not chosen.
    if done.returncode == 0:
        name, version, is_free_threaded, base, executable = json.loads(done.stdout)
        if name == "cpython" and tuple(version) >= OLDEST and not is_free_threaded:
            yield Interpreter(tuple(version), os.path.realpath(base), executable)


def prove(python: Interpreter, wheel: Path, expected: str) -> str:
    """Install a wheel and try it; return what was printed. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="epsagon-prove-") as name:
        place = Path(name)
        own = install(python, wheel, place / "env")
        said = call([own, "-I", copied("release/smoke.py", place), expected], place)
        if expected == "compiled":
            said += call([own, "-I", "-m", "pytest", *trimmers_tests(place)], place).splitlines()[-1]
        return said


def install(python: Interpreter, wheel: Path, folder: Path) -> str:
    """Return the Python of a fresh environment that has the wheel. Nothing is compiled for it."""
    # Without pip of its own: Debian's Python has none to give.
    call([python.path, "-m", "venv", "--without-pip", str(folder)], folder.parent, dict(os.environ))
    own = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", own, "--quiet", "--disable-pip-version-check"]
    wanted = [f"epsagon-fast[backend] @ {wheel.as_uri()}", *TESTED_WITH]
    call([*pip, "install", "--only-binary", ":all:", *wanted], folder.parent, dict(os.environ))
    return own


def trimmers_tests(place: Path) -> list[str]:
    """Copy the tests and return what pytest needs to run the trimmer's."""
    shutil.copytree(SOURCES / "tests", place / "tests", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    copied("pyproject.toml", place)
    return ["-q", "-p", "no:cacheprovider", "tests/test_trimming.py", "tests/test_shortening.py"]


def copied(name: str, place: Path) -> str:
    """Return the path of a copy, beside which there is nothing to import."""
    return str(shutil.copy(SOURCES / name, place))


def call(command: list[str], place: Path, environment: dict[str, str] | None = None) -> str:
    """Return what a program prints; by default it has no PATH but its own folder. Raises Failed."""
    # No variable of ours may lead back to the sources.
    bare = {"PATH": str(place / "env" / "bin"), "HOME": str(place), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=place, env=environment or bare, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise Failed(f"{done.stdout}\n{' '.join(command)}: exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
