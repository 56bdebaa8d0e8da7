"""Look for reads and writes outside an event, with AddressSanitizer and UBSan. `make asan` runs this file.

The C core and the search for names run on damaged events in buffers of exact size, once for each way of finding signs
that this machine has. A bytes object would hide a read of one byte too many, since a NUL stands behind it. Then the
extensions themselves run, built with the sanitizers and without Python's pools, for what they do with what the core
says and with Python's objects.
"""

import json
import os
import random
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "_ext" / "trimming"
QUEUE = SOURCES.with_name("queue")
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# For the tests: half of their time was the compiler's, for speed and for line numbers that nothing there needs.
QUICK = ("-O0", "-g0")
# Compiler flags, by the way in which a block's quotes are found.
PATHS = {"native": [], "portable": ["-DEPSAGON_FAST_PORTABLE"]}
# What is written in C, each with a program in sanitized/.
PARTS = ("strip", "shorten")
# The search for names, which needs tables beside its events.
SEARCH = "search"
# Extensions by what is done with them.
EXTENSIONS = {
    "trim": SOURCES / "_compiled.pyx",
    "search": SOURCES.with_name("masking") / "_search.pyx",
    "feed": SOURCES.with_name("collector") / "_feeding.pyx",
}
COMPILER = os.environ.get("CC", "cc")


def corpus() -> list[bytes]:
    """Events to damage: the seed's, and some with what those have not."""
    lines = (TESTS / "golden" / "trim_vectors.jsonl").read_text("utf-8").split("\n")
    events = [text for line in lines if line for text in json.loads(line)["events"]]
    events += long_events()
    slashes = chr(92) * 62
    # As long as the longest that could be strong, and longer.
    keys = ",".join(f'"{"k" * length}":1' for length in (62, 63, 64, 65, 300))
    return [text.encode() for text in events] + [
        b'\n{ "resource" : {\t"metadata" : { "region" : [ {"a":"]"} ] , "x" : -1.5e3 , "labels":{}} } } ',
        rb'{"\u0072esource":{"m\u0065tadata":{"\u006cabels":"\ud800","regio\u006E":"\"","k\\":null}}}',
        f'{{"resource":{{"metadata":{{"k":"{slashes}","{slashes}":"{slashes}","item_hash":"{slashes}"}}}}}}'.encode(),
        f'{{"resource":{{"metadata":{{{keys}}}}}}}'.encode(),
        f'{{"resource":{{"metadata":{{"k":[{"0.25,-1e9," * 60}0],"l":["{"b" * 600}"]}}}}}}'.encode(),
        b'{"resource":{"metadata":{"k":[' + b'[{"a":' * 40 + b'"b"' + b"}]" * 40 + b'],"region":true}}}',
    ]


def long_events() -> list[str]:
    """Events with values to be shortened: every kind of character and escape, marks, containers."""
    pieces = ["a", "é", "日", "😀", r"\n", r"\\", r"\u00e9", r"\ud83d\ude00", r"\ud83d", "... 7 bytes left out ..."]
    texts = [f"{'b' * (number % 13)}{piece * 60}" for number, piece in enumerate(pieces)]
    texts += [f"{text}... 12345 bytes left out" for text in texts[:3]]
    metadata = [f'{{"k":"{text}","region":"eu","l":["{text}",\n1]}}' for text in texts]
    failed = [f'{{"message":"{text}","traceback":"{text * 4}"}}' for text in texts]
    return [
        f'{{"resource":{{"metadata":{weak}}},"exception":{exception}}}'
        for weak, exception in zip(metadata, failed, strict=True)
    ]


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


def named_events() -> list[bytes]:
    """Events in which names stand in all ways, or may be hidden, among those that hold none."""
    texts = [
        *(
            "a=1&b=2",
            "x: y",
            "<a b='c'>d</a>",
            "n IN (1, 2) OR n LIKE '%x%'",
            "run --color x -v",
            "http://h:80/x?q=1#y",
        ),
        *(
            "token=x",
            "%74oken=x",
            "http://u:p@h",
            "t\uff4fken: x",
            "\U0001d42bx: y",
            "café: 日本 😀",
            "--token x",
            "%E2%82%AC=x",
        ),
        *(
            '[ "Cookie", "x"]',
            '{"name": "token", "value": "x"}',
            "token LIKE 'x'",
            "(token) VALUES (1)",
            "x" * 300 + ":y",
        ),
    ]
    nested = [json.dumps({"a": [text, 1], "b": text}) for text in texts]
    forms = [*texts, *nested, *map(json.dumps, nested)]
    return [json.dumps({"resource": {"metadata": {"k": text}}}, ensure_ascii=False).encode() for text in forms]


def searches(folder: Path, *flags: str) -> Iterator[tuple[str, Path]]:
    """Compile the search for each way to find signs; yield what it is, and the program."""
    for path, its_flags in PATHS.items():
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


def run_crc(
    folder: Path, tries: int, seed: int, *flags: str, headers: Path = QUEUE
) -> subprocess.CompletedProcess[str]:
    """Compute so many CRCs of bytes in buffers of exactly their size."""
    program = build_core(folder, *flags, what="crc", headers=headers)
    return subprocess.run([program, str(tries), str(seed)], capture_output=True, text=True, timeout=600)


def build_extension(folder: Path, source: Path, *flags: str) -> Path:
    """Compile an extension with the sanitizers; return its path."""
    generated, module = folder / f"{source.stem}.c", folder / f"{source.stem}.so"
    cython = [sys.executable, "-m", "cython", "-3", source, "-o", generated]
    subprocess.run(cython, check=True, timeout=120)
    python = ["-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000", f"-I{sysconfig.get_paths()['include']}"]
    compile = [COMPILER, *SANITIZED, *flags, *python, f"-I{source.parent}", generated, "-o", module]
    subprocess.run(compile, check=True, timeout=300)
    return module


def run_extension(module: Path, tries: int, seed: int = 1, what: str = "trim") -> subprocess.CompletedProcess[str]:
    """Do something that many times with an extension in a new interpreter, where malloc itself makes every object.

    `what`: "trim" damaged events, "search" them, or "feed" records of all kinds.
    """
    library = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = os.environ | {
        "LD_PRELOAD": library.stdout.strip(),
        "PYTHONMALLOC": "malloc",
        # An interpreter that ends leaves memory behind; that is not what is looked for.
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    command = [sys.executable, __file__, what, str(module), str(tries), str(seed)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment)


def loaded(name: str, module: str) -> Any:
    """Return the extension in a file."""
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    spec = spec_from_loader(name, ExtensionFileLoader(name, module))
    assert spec is not None and spec.loader is not None
    compiled = module_from_spec(spec)
    spec.loader.exec_module(compiled)
    return compiled


def damage(event: bytes, dice: random.Random) -> bytearray:
    """Return a part of an event with another byte in it."""
    damaged = bytearray(event)
    del damaged[len(damaged) - int(len(damaged) * max(0, dice.random() - 0.5)) :]
    damaged[dice.randrange(len(damaged))] = dice.randrange(256)
    return damaged


def search_damaged(module: str, tries: str, seed: str) -> None:
    """Search damaged events with the extension in this file; print how many, and in how many nothing was found."""
    from epsagon_fast.masking.keys import DEFAULT_KEYS, Keys
    from epsagon_fast.masking.search import tables

    search = loaded("epsagon_fast.masking._search", module).Search(*tables(Keys(DEFAULT_KEYS).fragments or ()))
    events, dice = named_events(), random.Random(seed)
    print(
        tries,
        sum(search.may_hold(bytes(damage(dice.choice(events), dice))) in (True, False) for _ in range(int(tries))),
    )


def feed_any(module: str, tries: str, seed: str) -> None:
    """Take records of all kinds into traces with the extension in this file; print how many, and how many were taken.

    Payloads and records go as soon as nothing holds them, so that a reference too few is a read of freed memory.
    """
    from collections import Counter
    from types import SimpleNamespace

    from epsagon_fast.collector.assembling.accounts import Accounts
    from epsagon_fast.protocol import Kind, Record

    feeding, dice, taken = loaded("epsagon_fast.collector.assembling._feeding", module), random.Random(seed), 0
    others = [None, 1, (1, 2), ("x",) * 5, Record(Kind.EVENT, 0, 0, b"a" * 16, "text")]
    accounts, counters = Accounts(), Counter[str]()
    for number in range(int(tries)):
        traces = {
            bytes([name]) * 16: SimpleNamespace(
                stream=SimpleNamespace(events=[], is_too_big=False, hold_bytes=600, floor_bytes=2, arrived_bytes=0),
                account=SimpleNamespace(open_bytes=0),
            )
            for name in range(3)
        }
        records = [
            Record(Kind.EVENT, 0, at, bytes([dice.randrange(3)]) * 16, bytes(dice.randrange(1, 60))) for at in range(9)
        ]
        if number % 4 == 0:
            records[dice.randrange(1, 9)] = dice.choice(others)
        elif number % 4 == 1:
            records[dice.randrange(1, 9)] = Record(Kind.EVENT, dice.randrange(2), 0, bytes(dice.randrange(17)), b"")
        with suppress(TypeError):
            feeding.take(records, dice.randrange(-1, 2), b"ring", traces, {}, [], bool, accounts, counters, [])
        del records
        taken += any(sum(map(len, trace.stream.events)) for trace in traces.values())
        whole_damaged(feeding, dice)
    print(tries, taken)


def whole_damaged(feeding: Any, dice: random.Random) -> None:
    """Take in a trace of which the OPEN and the CLOSE may be damaged, and build its body."""
    from records import RING, added, closed, event, opened, own_runner

    from epsagon_fast.collector.assembling.assembly import Assembly

    assembly = Assembly()
    records = [opened(own_runner(weak="x" * 9)), added(event()), added(event(1)), closed(0.5)]
    at = dice.randrange(8)
    if at in (0, 3):
        records[at] = records[at]._replace(payload=bytes(damage(records[at].payload, dice)))
    books = assembly._open, assembly._open_of, assembly._closed, assembly._is_new, assembly.accounts, assembly.counters
    feeding.unmasked(records, 0, assembly.masks)
    feeding.strays(records, assembly._open)
    feeding.take(records, 0, RING, *books, [])
    for trace in assembly._open.values():
        with suppress(ValueError, TypeError):
            feeding.whole(trace)


def trim_damaged(module: str, tries: str, seed: str) -> None:
    """Strip and shorten damaged events with the extension in this file; print how many, and how many were stripped."""
    compiled = loaded("epsagon_fast.trimming._compiled", module)
    events, dice, trimmed = corpus(), random.Random(seed), 0
    for _ in range(int(tries)):
        damaged = damage(dice.choice(events), dice)
        with suppress(ValueError):
            trimmed += compiled.trim([bytes(damaged)], len(damaged) - 1).stripped_count
        with suppress(ValueError):
            compiled.shorten([bytes(damaged), dice.choice(events)], dice.randrange(2 * len(damaged)))
    print(tries, trimmed)


def fault(runs: dict[str, subprocess.CompletedProcess[str]]) -> str | None:
    """Say what is wrong with these runs: a finding, too few events that came far enough, answers that differ."""
    for name, run in runs.items():
        if run.returncode:
            return f"{name}: return code {run.returncode}\n{run.stderr}"
        tried, reached = map(int, run.stdout.split()[:2])
        if reached * 2 < tried:
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
        runs["crc"] = run_crc(Path(folder), tries, seed)
        for what, source in EXTENSIONS.items():
            runs[f"extension that can {what}"] = run_extension(build_extension(Path(folder), source), tries, seed, what)
    print(
        "Damaged events, those that reached their metadata (of the extensions: that were stripped, taken, searched), "
        "digest of answers:"
    )
    for name, run in runs.items():
        print(f"{name}: {run.stdout.strip()}")
    sys.exit(fault(runs))


if __name__ == "__main__":
    if sys.argv[1] in EXTENSIONS:
        {"trim": trim_damaged, "search": search_damaged, "feed": feed_any}[sys.argv[1]](*sys.argv[2:])
    else:
        main(int(sys.argv[1]))
