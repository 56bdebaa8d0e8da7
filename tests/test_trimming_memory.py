import re
import shutil
import subprocess
from pathlib import Path

import pytest
import sanitizing
from places import times
from sanitizing import QUICK

# A mistake to put into the core: where, what stands there, what shall stand there instead.
SHORTEN_MISTAKES = {
    "a mark read over the end": ("cuts.h", "value->length - at >= behind.length && memcmp", "memcmp"),
    "escapes that are not counted": ("cuts.h", "used + 1 + is_special(value->text[at])", "used + 1"),
    "less said than is written": (
        "shorten.h",
        "event->close - event->open - event->kept",
        "event->close - event->open",
    ),
}
SKIPPED = "; at += BLOCK_BYTES) {\n        block_bytes block = load_block(bytes + at);\n        if ("
MISTAKES = {
    "a block read over the end": ("strip.h", "if (LIKELY(left >= BLOCK_BYTES))", "if (left > 0)"),
    "a byte read behind the end": ("strip.h", "LIKELY(*at < s->length &&", "LIKELY(*at <= s->length &&"),
    "white space read over the end": ("strip.h", "while (at < length && is_space", "while (at <= length && is_space"),
    "letters read over the end": (
        "strip.h",
        f"length - at >= BLOCK_BYTES{SKIPPED}has_mark",
        f"at < length{SKIPPED}has_mark",
    ),
    "numbers read over the end": (
        "strip.h",
        f"length - at >= BLOCK_BYTES{SKIPPED}may_have_brackets",
        f"at < length{SKIPPED}may_have_brackets",
    ),
    "brackets read over the end": ("strip.h", "if (LIKELY(length == BLOCK_BYTES))", "if (length > 0)"),
    "a number read over the end": ("strip.h", "while (at < length && bytes[at] != ','", "while (bytes[at] != ','"),
    "a short event read as a block": ("marks.h", "memcpy(copy, bytes, length)", "memcpy(copy, bytes, BLOCK_BYTES)"),
    "a table read for a longer key than it knows": ("strip.h", "if (key.length > MAX_KEY_BYTES) return 0;", ""),
    "a longer key decoded than there is room": ("strip.h", "byte < 0 || count == MAX_KEY_BYTES", "byte < 0"),
    "the wrong end of the last block": ("marks.h", "bytes + length - BLOCK_BYTES", "bytes + length - left"),
}


@pytest.mark.parametrize(("part", "tries"), [("strip", times(100_000, 20_000)), ("shorten", times(10_000, 2_000))])
def test_core_touches_no_byte_outside_damaged_events_and_all_its_paths_agree(
    tmp_path: Path, part: str, tries: int
) -> None:
    runs = {
        name: sanitizing.run_core(program, tries) for name, program in sanitizing.cores(tmp_path, *QUICK, parts=[part])
    }
    assert sanitizing.fault(runs) is None
    assert all(run.stdout.startswith(f"{tries} ") for run in runs.values())


@pytest.mark.parametrize(
    ("native", "portable", "what"),
    [
        ((1, ""), (0, "10 9 a"), "strip, native: return code 1"),
        ((0, "10 9 a"), (0, "10 2 a"), "strip, portable: only 2 of 10"),
        ((0, "10 9 a"), (0, "10 9 b"), "differ"),
    ],
)
def test_a_run_that_proves_nothing_is_a_failure(native: tuple[int, str], portable: tuple[int, str], what: str) -> None:
    runs = {
        name: subprocess.CompletedProcess([], code, printed, "")
        for name, (code, printed) in {"strip, native": native, "strip, portable": portable}.items()
    }
    assert what in (sanitizing.fault(runs) or "")


@pytest.mark.parametrize(
    "mistake", [*MISTAKES.values(), *SHORTEN_MISTAKES.values()], ids=[*MISTAKES, *SHORTEN_MISTAKES]
)
def test_a_mistake_in_the_core_is_found(tmp_path: Path, mistake: tuple[str, str, str]) -> None:
    name, right, wrong = mistake
    headers = Path(shutil.copytree(sanitizing.SOURCES, tmp_path / "headers", ignore=shutil.ignore_patterns("*.c")))
    source = (headers / name).read_text()
    assert source.count(right) == 1
    (headers / name).write_text(source.replace(right, wrong))
    # It ends at the first one that is found.
    what, tries = ("strip", 100_000) if mistake in MISTAKES.values() else ("shorten", 10_000)
    # Of UBSan's checks that of sizes is left: the others find none of these, and double the compiler's time.
    flags = (*QUICK, "-fno-sanitize=undefined", "-fsanitize=object-size")
    program = sanitizing.build_core(tmp_path, *flags, what=what, headers=headers)
    run = sanitizing.run_core(program, tries)
    # As AddressSanitizer says it, and UBSan.
    assert re.search("ERROR: AddressSanitizer(.|\n)*(READ|WRITE) of size|with insufficient space", run.stderr)


def test_the_search_for_names_touches_no_byte_outside_damaged_events(tmp_path: Path) -> None:
    programs = sanitizing.searches(tmp_path, *QUICK)
    runs = {name: sanitizing.run_search(each, times(50_000, 10_000)) for name, each in programs}
    assert sanitizing.fault(runs) is None


@pytest.mark.parametrize("part", sanitizing.DAMAGED)
def test_extensions_keep_what_they_use_and_nothing_else(tmp_path: Path, part: str) -> None:
    module = sanitizing.build_extension(tmp_path, part, *QUICK)
    assert sanitizing.fault({part: sanitizing.run_extension(module, part, times(10_000, 500))}) is None
