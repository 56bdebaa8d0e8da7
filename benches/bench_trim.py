"""Trimming throughput: both trimmers, the same with orjson, and a plain copy of the same bytes as the floor.

`pytest benches/bench_trim.py` prints one table a workload. `python benches/bench_trim.py` prints the tables of
docs/trimming.md: their rows take turns, so that a busy moment of the machine falls on all of them. Shortening is
measured on the same workloads and on recorded traces, with how much of the limit and of the keys each rule keeps.
`python benches/bench_trim.py instructions` counts what no busy machine changes, by callgrind.
"""

import gzip
import pathlib
import pickle
import random
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from operator import itemgetter
from time import perf_counter

import orjson
import pytest
from counting import instructions
from pytest_benchmark.fixture import BenchmarkFixture
from report import Report, shown

from epsagon_fast.protocol import DEFAULT_MAX_TRACE_BYTES, STRONG_KEYS
from epsagon_fast.trimming import Shortened, Trimmed, _compiled, _reference

PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789 /:-_."
NON_ASCII = "äöüßéñ日本語данные🙂"


def plain(size: int) -> str:
    return "".join(random.choices(PLAIN, k=size))


def non_ascii(size: int) -> str:
    return "".join(random.choices(NON_ASCII, k=size))


def escaped_json(size: int) -> str:
    """JSON as it stands in a request's body: an event that holds it escapes every quote."""
    return orjson.dumps({f"field_{n}": plain(12) for n in range(1 + size // 28)}).decode()


def numbers(size: int) -> list[float]:
    return [random.random() for _ in range(size // 19)]


def event(size_bytes: int, value: Callable[[int], object] = plain, value_size: int = 80) -> bytes:
    """Make an event of about that size, in wire order, with one strong key and many weak ones."""
    metadata = {"region": "eu-west-1"}
    resource = {"name": "orders", "type": "http", "operation": "POST", "metadata": metadata}
    whole = {"id": plain(8), "start_time": 1700000000.25, "resource": resource, "origin": "urllib3", "duration": 0.042}
    while len(orjson.dumps(whole)) < size_bytes:
        metadata[f"key_{len(metadata)}"] = value(value_size)
    return orjson.dumps(whole)


def all_stripped(events: list[bytes]) -> tuple[list[bytes], int]:
    """Return the events with the limit that only stripping the last of them meets."""
    with pytest.raises(_reference.TraceTooBig) as too_big:
        _reference.trim(events, 0)
    return events, too_big.value.size_bytes


random.seed(1)
WORKLOADS = {
    "20 x 1 KB that fits": ([event(1000) for _ in range(20)], DEFAULT_MAX_TRACE_BYTES),
    "100 x 2 KB": all_stripped([event(2000) for _ in range(100)]),
    "1 MB value among 50 x 1 KB": (
        [event(1000) for _ in range(25)] + [event(2**20, value_size=2**20)] + [event(1000) for _ in range(25)],
        DEFAULT_MAX_TRACE_BYTES,
    ),
    "100 x 2.5 KB of escaped JSON": all_stripped([event(2500, escaped_json, 400) for _ in range(100)]),
    "100 x 2 KB of non-ASCII": all_stripped([event(2000, non_ascii, 40) for _ in range(100)]),
    "2000 x 200 B": all_stripped([event(190, value_size=20) for _ in range(2000)]),
    # Against the grain: quotes close to each other, and a value that has none.
    "100 x 2 KB in members of 20 B": all_stripped([event(2000, value_size=20) for _ in range(100)]),
    "100 x 2 KB of numbers": all_stripped([event(2000, numbers, 1800) for _ in range(100)]),
}


# Recorded by recording.py.
RECORDED = {
    f"recorded: {name}": ([orjson.dumps(each) for each in events], DEFAULT_MAX_TRACE_BYTES)
    for name, events in orjson.loads(
        gzip.decompress(pathlib.Path(__file__).with_name("traces.json.gz").read_bytes())
    ).items()
}


def trim_with_orjson(events: list[bytes], limit_bytes: int) -> Trimmed:
    kept = list(events)
    size = sum(map(len, kept)) + len(kept) - 1
    if size <= limit_bytes:
        return Trimmed(kept, size, 0)
    for number, whole in enumerate(kept):
        parsed = orjson.loads(whole)
        metadata = parsed["resource"]["metadata"]
        for key in [key for key in metadata if key not in STRONG_KEYS]:
            del metadata[key]
        kept[number] = orjson.dumps(parsed)
        size -= len(whole) - len(kept[number])
        if size <= limit_bytes:
            return Trimmed(kept, size, number + 1)
    raise _reference.TraceTooBig(size)


def shorten_with_orjson(events: list[bytes], limit_bytes: int) -> Trimmed:
    """Shorten with loads and dumps: nearly the same level, from the lengths of all values, sorted."""
    size = sum(map(len, events)) + len(events) - 1
    if size <= limit_bytes:
        return Trimmed(events, size, 0)
    parsed = [orjson.loads(event) for event in events]
    values = [metadata for event in parsed if (metadata := event["resource"]["metadata"])]
    texts = [orjson.dumps(value) for metadata in values for key, value in metadata.items() if key not in STRONG_KEYS]
    lengths = sorted(map(len, texts))
    fixed = size - sum(lengths)
    level = bisect_right(range(64, lengths[-1]), limit_bytes, key=lambda at: fixed + sum(min(n, at) for n in lengths))
    for metadata in values:
        for key, value in metadata.items():
            if key not in STRONG_KEYS and len(text := orjson.dumps(value)) > level + 62:
                kept = text[: level + 30].decode(errors="ignore")
                metadata[key] = f"{kept}... {len(text) - len(kept)} bytes left out"
    return trim_with_orjson([orjson.dumps(event) for event in parsed], limit_bytes)


def copy(events: list[bytes], _limit_bytes: int) -> list[bytes]:
    """Copy each event into an object of its own, as Python code does it that is asked for a copy."""
    return [bytes(memoryview(event)) for event in events]


def cut(events: list[bytes], _limit_bytes: int) -> list[bytes]:
    """Copy each event but its last byte: the least that Python code can spend on as many new objects."""
    return [event[:-1] for event in events]


def join(events: list[bytes], _limit_bytes: int) -> bytes:
    """Copy all events into one object: the memory's speed, for comparison."""
    return b"".join(events)


ROWS = {
    "compiled": _compiled.trim,
    "reference": _reference.trim,
    "orjson": trim_with_orjson,
    "copy": copy,
    "cut": cut,
    "join": join,
}
FLOORS = ("copy", "cut", "join")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_trim(benchmark: BenchmarkFixture, workload: str, row: str) -> None:
    events, limit_bytes = WORKLOADS[workload]
    benchmark.group = workload
    benchmark.extra_info["bytes"] = sum(map(len, events))
    benchmark(ROWS[row], events, limit_bytes)


def best_s(events: list[bytes], limit_bytes: int, turns: int = 300) -> dict[str, float]:
    """Return the shortest time of each row but the slow reference."""
    best = dict.fromkeys(("compiled", "orjson", *FLOORS), float("inf"))
    for _ in range(turns):
        for row in best:
            start = perf_counter()
            ROWS[row](events, limit_bytes)
            best[row] = min(best[row], perf_counter() - start)
    return best


COLUMNS = ("workload", "compiled us", "GB/s", "ns per event", "orjson / compiled")
COLUMNS += tuple(f"compiled / {floor}" for floor in FLOORS)
# epsagon-go on a machine with two processors of x86-64, for 100 x 2 KB.
OF_EPSAGON_GO = "The best of a hundred turns each. epsagon-go trims 100 x 2 KB at 0.018 to 0.025 GB/s."


def ratios(turns: int) -> Iterator[tuple[str, list[float]]]:
    """Return the table's rows, in the order of COLUMNS."""
    for name, (events, limit_bytes) in WORKLOADS.items():
        best = best_s(events, limit_bytes, turns)
        own = best["compiled"]
        figures = [own * 1e6, sum(map(len, events)) / own / 1e9, own / len(events) * 1e9]
        yield name, [*figures, best["orjson"] / own, *(own / best[floor] for floor in FLOORS)]


def test_ratios(report: Report) -> None:
    rows = dict(ratios(turns=100))
    report.table("trimming", "Trimming", COLUMNS, [(name, *row) for name, row in rows.items()], OF_EPSAGON_GO)
    slowest, by_orjson = min(((name, row[3]) for name, row in rows.items() if "fits" not in name), key=itemgetter(1))
    why = f"{slowest} is the exception."
    report.target("trimming at least 6 times as fast as orjson", f"{by_orjson:.1f}x", by_orjson >= 6, why)
    large = rows["1 MB value among 50 x 1 KB"][3]
    report.target("trimming a value of a megabyte at least 8 times as fast as orjson", f"{large:.1f}x", large >= 8)
    to_copy = max(rows[name][4] for name in ("100 x 2 KB", "1 MB value among 50 x 1 KB", "100 x 2 KB of non-ASCII"))
    report.target("trimming plain and non-ASCII payloads at most 2x a copy of them", f"{to_copy:.2f}x", to_copy <= 2)
    fits_ns = rows["20 x 1 KB that fits"][2]
    report.target("a trace that fits under 30 ns an event", f"{fits_ns:.0f} ns", fits_ns < 30)
    escaped = rows["100 x 2.5 KB of escaped JSON"][4]
    report.target("trimming escaped JSON at most 3x a copy of it", f"{escaped:.2f}x", escaped <= 3)


SHORTENING_COLUMNS = ("workload", "shorten us", "/ trim", "orjson / shorten", "level, bytes")
SHORTENING_COLUMNS += ("kept, % of limit: strip", "shorten", "keys kept, %: strip", "shorten")
SHORTENERS: dict[str, Callable[[list[bytes], int], Trimmed | Shortened]] = {
    "shorten": _compiled.shorten,
    "trim": _compiled.trim,
    "orjson": shorten_with_orjson,
}


def keys_of(events: list[bytes]) -> int:
    return sum(len(orjson.loads(event)["resource"]["metadata"]) for event in events)


def shortening(turns: int) -> Iterator[tuple[str, list[float]]]:
    """Return the rows of SHORTENING_COLUMNS."""
    for name, (events, limit_bytes) in (WORKLOADS | RECORDED).items():
        best = dict.fromkeys(SHORTENERS, float("inf"))
        for _ in range(turns):
            for row, rule in SHORTENERS.items():
                # What ran before has put other things into the caches.
                b"".join(events)
                start = perf_counter()
                rule(events, limit_bytes)
                best[row] = min(best[row], perf_counter() - start)
        stripped, shortened = _compiled.trim(events, limit_bytes), _compiled.shorten(events, limit_bytes)
        kept = [result.size_bytes / limit_bytes * 100 for result in (stripped, shortened)]
        keys = [keys_of(result.events) / keys_of(events) * 100 for result in (stripped, shortened)]
        times = [best["shorten"] * 1e6, best["shorten"] / best["trim"], best["orjson"] / best["shorten"]]
        yield name, [*times, shortened.level_bytes, *kept, *keys]


def test_shortening(report: Report) -> None:
    rows = dict(shortening(turns=100))
    report.table("trimming", "Shortening", SHORTENING_COLUMNS, [(name, *row) for name, row in rows.items()])
    to_trim = max(rows[name][1] for name in WORKLOADS)
    report.target("shortening at most 2x trimming on the same", f"{to_trim:.2f}x", to_trim <= 2)
    slowest, by_orjson = min(((name, rows[name][2]) for name in rows if "fits" not in name), key=itemgetter(1))
    why = f"{slowest} is the exception."
    report.target("shortening at least 4 times as fast as with orjson", f"{by_orjson:.1f}x", by_orjson >= 4, why)
    kept = min(rows[name][5] for name in RECORDED)
    report.target("recorded traces fill at least 99 % of the limit", f"{kept:.2f} %", kept >= 99)


def print_table(columns: tuple[str, ...], rows: Iterator[tuple[str, list[float]]]) -> None:
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for name, row in rows:
        print(f"| {name} |", " | ".join(shown(float(f"{figure:.3g}")) for figure in row), "|")
    print()


# Runs under callgrind.
PROGRAM = """
import pathlib, pickle, sys
from epsagon_fast.trimming import _compiled
rule = getattr(_compiled, sys.argv[2])
events, limit_bytes = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
any(map(lambda _: not rule(events, limit_bytes), range(int(sys.argv[3]))))
"""
COUNTED_TIMES = 10


def counted() -> Iterator[tuple[str, list[float]]]:
    """Return for each workload how many instructions a byte takes: trimming, and shortening."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "workload"
        for name, (events, limit_bytes) in (WORKLOADS | RECORDED).items():
            path.write_bytes(pickle.dumps((events, limit_bytes)))
            counts = [
                instructions(PROGRAM, str(path), rule, str(COUNTED_TIMES))[0].total() for rule in ("trim", "shorten")
            ]
            yield name, [count / COUNTED_TIMES / sum(map(len, events)) for count in counts]


if __name__ == "__main__":
    if sys.argv[1:] == ["instructions"]:
        print_table(("workload", "instructions a byte: trim", "shorten"), counted())
        sys.exit()
    print_table(COLUMNS, ratios(turns=300))
    print_table(SHORTENING_COLUMNS, shortening(turns=300))
