"""Look for reads and writes outside an event, with AddressSanitizer and UBSan. `make asan` runs this file.

The C core and the search for names run on damaged events in buffers of exact size, once for each way of finding signs
that this machine has. A bytes object would hide a read of one byte too many, since a NUL stands behind it. Then the
extensions themselves run, built with the sanitizers and without Python's pools, for what they do with what the core
says and with Python's objects.
"""

import os
import random
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from damaging import DAMAGED
from events_to_damage import corpus, named_events, plain_events

from epsagon_fast.compiled import MODULES

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "_ext" / "trimming"
QUEUE = SOURCES.with_name("queue")
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# For the tests: half of their time was the compiler's, for speed and for line numbers that nothing there needs.
QUICK = ("-O0", "-g0")
# Compiler flags, by the way in which a block's quotes are found.
PATHS = {"native": [], "portable": ["-DEPSAGON_FAST_PORTABLE"]}
# A processor that looks at 32 bytes at once hides the way that looks at 16.
SEARCH_PATHS = PATHS | {"narrow": ["-DEPSAGON_FAST_NARROW"]}
# What is written in C, each with a program in sanitized/.
PARTS = ("strip", "shorten")
# The search for names, which needs tables beside its events.
SEARCH = "search"
COMPILER = os.environ.get("CC", "cc")


def build_core(folder: Path, *flags: str, what: str = "strip", headers: Path = SOURCES) -> Path:
    """Compile the program that damages events and strips or shortens them; return its path."""
    program = folder / f"{what}_damaged"
    source = TESTS / "sanitized" / f"{what}_damaged.c"
    subprocess.run([COMPILER, *SANITIZED, *flags, f"-I{headers}", source, "-o", program], check=True, timeout=120)
    return program


def cores(folder: Path, *flags: str, parts: Sequence[str] = PARTS) -> Iterator[tuple[str, Path]]:
    """Compile each part of the core for each way to find quotes; yield what it is, and the program."""
    for what in parts:
        for path, its_flags in PATHS.items():
            yield f"{what}, {path}", build_core(folder, *flags, *its_flags, what=what)


def run_core(
    program: Path, tries: int, seed: int = 1, kept: Sequence[bytes] = (), *more: Path
) -> subprocess.CompletedProcess[str]:
    """Damage that many events. A sanitizer's finding is on stderr, with a return code that is not 0."""
    events = program.with_name("events")
    events.write_bytes(b"".join(struct.pack("=I", len(event)) + event for event in kept or corpus()))
    return subprocess.run([program, events, str(tries), str(seed), *more], capture_output=True, text=True, timeout=600)


def searches(folder: Path, *flags: str) -> Iterator[tuple[str, Path]]:
    """Compile the search for each way to find signs; yield what it is, and the program."""
    for path, its_flags in SEARCH_PATHS.items():
        headers = SOURCES.with_name("masking")
        (folder / path).mkdir()
        yield f"{SEARCH}, {path}", build_core(folder / path, *flags, *its_flags, f"-I{headers}", what=SEARCH)


def run_search(program: Path, tries: int, seed: int = 1) -> subprocess.CompletedProcess[str]:
    """Search that many damaged events for the names that are secret by default."""
    from epsagon_fast.masking.keys import DEFAULT_KEYS, Keys
    from epsagon_fast.masking.search import tables

    classes, states, _, folding, sieve = tables(Keys(DEFAULT_KEYS).fragments or ())
    parts = program.with_name("tables")
    parts.write_bytes(struct.pack("=I", len(states)) + classes + folding + sieve + states)
    return run_core(program, tries, seed, named_events(), parts)


def run_plain(folder: Path, tries: int, seed: int, *flags: str) -> subprocess.CompletedProcess[str]:
    """Read that many damaged events as those of which spans are made without Python, and write these."""
    program = build_core(folder, *flags, f"-I{SOURCES.with_name('collector')}", what="plain")
    return run_core(program, tries, seed, plain_events())


def run_floats(folder: Path, tries: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Write that many floats, and read them back."""
    # What else is in the header needs Python. A compiler that optimizes leaves out what is not used.
    flags = f"-I{sysconfig.get_paths()['include']}", "-Wno-unused-function"
    program = build_core(folder, *flags, what="floats", headers=SOURCES.with_name("producer"))
    return subprocess.run([program, str(tries), str(seed)], capture_output=True, text=True, timeout=600)


def run_crc(
    folder: Path, tries: int, seed: int, *flags: str, headers: Path = QUEUE
) -> subprocess.CompletedProcess[str]:
    """Compute so many CRCs of bytes in buffers of exactly their size."""
    program = build_core(folder, *flags, what="crc", headers=headers)
    return subprocess.run([program, str(tries), str(seed)], capture_output=True, text=True, timeout=600)


def build_extension(folder: Path, part: str, *flags: str) -> Path:
    """Compile the extension of a part of compiled.MODULES with the sanitizers; return its path."""
    [source] = SOURCES.parent.glob(f"*/{MODULES[part].rpartition('.')[2]}.pyx")
    generated, module = folder / f"{source.stem}.c", folder / f"{source.stem}.so"
    cython = [sys.executable, "-m", "cython", "-3", source, "-o", generated]
    subprocess.run(cython, check=True, timeout=120)
    python = ["-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000", f"-I{sysconfig.get_paths()['include']}"]
    compile = [COMPILER, *SANITIZED, *flags, *python, f"-I{source.parent}", generated, "-o", module]
    subprocess.run(compile, check=True, timeout=300)
    return module


def run_extension(module: Path, part: str, tries: int, seed: int = 1) -> subprocess.CompletedProcess[str]:
    """Do that many times with an extension what damaging.py does with it, where malloc itself makes every object."""
    library = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = os.environ | {
        "LD_PRELOAD": library.stdout.strip(),
        "PYTHONMALLOC": "malloc",
        # An interpreter that ends leaves memory behind; that is not what is looked for.
        "ASAN_OPTIONS": "detect_leaks=0",
        # The package takes the extension, also where the tests are of the twins.
        "EPSAGON_FAST_IMPL": "",
    }
    command = [sys.executable, TESTS / "damaging.py", part, module, str(tries), str(seed)]
    return subprocess.run(command, capture_output=True, text=True, timeout=7200, env=environment)


def fault(runs: dict[str, subprocess.CompletedProcess[str]]) -> str | None:
    """Say what is wrong with these runs: a finding, too few events that came far enough, answers that differ."""
    for name, run in runs.items():
        if run.returncode:
            return f"{name}: return code {run.returncode}\n{run.stderr}"
        tried, reached = map(int, run.stdout.split()[:2])
        if reached * 4 < tried:
            return f"{name}: only {reached} of {tried} came to their metadata"
    for names in ({name for name in runs if name.startswith(what)} for what in (*PARTS, SEARCH)):
        digests = {runs[name].stdout.split()[2] for name in names if "," in name}
        if len(digests) > 1:
            return f"the ways to find quotes differ in their answers: {digests}"
    return None


def main(tries: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: run_core(program, tries, seed) for name, program in cores(Path(folder))}
        runs |= {name: run_search(program, tries, seed) for name, program in searches(Path(folder))}
        runs["plain"] = run_plain(Path(folder), tries, seed)
        runs["floats"] = run_floats(Path(folder), tries, seed)
        runs["crc"] = run_crc(Path(folder), tries, seed)
        for part in DAMAGED:
            runs[f"extension, {part}"] = run_extension(build_extension(Path(folder), part), part, tries, seed)
    print(
        "Damaged events, those that reached their metadata (of the extensions: with which they did what they are for), "
        "digest of answers:"
    )
    for name, run in runs.items():
        print(f"{name}: {run.stdout.strip()}")
    sys.exit(fault(runs))


if __name__ == "__main__":
    main(int(sys.argv[1]))
