import re
import shutil
import subprocess
from pathlib import Path

import pytest
import sanitizing

# A mistake to put into the core: where, what stands there, what shall stand there instead.
MISTAKES = {
    "a block read over the end": ("strip.h", "if (LIKELY(left >= BLOCK_BYTES))", "if (left > 0)"),
    "a byte read behind the end": ("strip.h", "LIKELY(*at < s->length &&", "LIKELY(*at <= s->length &&"),
    "white space read over the end": ("strip.h", "while (at < length && is_space", "while (at <= length && is_space"),
    "a container read over the end": ("strip.h", "for (; at < s->length; at++)", "for (; at <= s->length; at++)"),
    "a number read over the end": ("strip.h", "while (at < length && bytes[at] != ','", "while (bytes[at] != ','"),
    "a short event read as a block": ("marks.h", "memcpy(padded, bytes, length)", "memcpy(padded, bytes, BLOCK_BYTES)"),
    "a table read for a longer key than it knows": ("strip.h", "if (key.length > MAX_KEY_BYTES) return 0;", ""),
    "a longer key decoded than there is room": ("strip.h", "byte < 0 || count == MAX_KEY_BYTES", "byte < 0"),
    "the wrong end of the last block": ("marks.h", "bytes + length - BLOCK_BYTES", "bytes + length - left"),
}


def test_core_touches_no_byte_outside_damaged_events_and_all_its_paths_agree(tmp_path: Path) -> None:
    runs = {
        name: sanitizing.run_core(sanitizing.build_core(tmp_path, *flags), 100_000)
        for name, flags in sanitizing.PATHS.items()
    }
    assert sanitizing.fault(runs) is None
    assert all(run.stdout.startswith("100000 ") for run in runs.values())


@pytest.mark.parametrize(
    ("native", "portable", "what"),
    [
        ((1, ""), (0, "10 9 a"), "native: return code 1"),
        ((0, "10 9 a"), (0, "10 4 a"), "portable: only 4 of 10"),
        ((0, "10 9 a"), (0, "10 9 b"), "differ"),
    ],
)
def test_a_run_that_proves_nothing_is_a_failure(native: tuple[int, str], portable: tuple[int, str], what: str) -> None:
    runs = {
        name: subprocess.CompletedProcess([], code, printed, "")
        for name, (code, printed) in {"native": native, "portable": portable}.items()
    }
    assert what in (sanitizing.fault(runs) or "")


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_core_is_found(tmp_path: Path, mistake: tuple[str, str, str]) -> None:
    name, right, wrong = mistake
    headers = Path(shutil.copytree(sanitizing.SOURCES, tmp_path / "headers", ignore=shutil.ignore_patterns("*.c")))
    source = (headers / name).read_text()
    assert source.count(right) == 1
    (headers / name).write_text(source.replace(right, wrong))
    run = sanitizing.run_core(sanitizing.build_core(tmp_path, headers=headers), 100_000)
    # As AddressSanitizer says it, and UBSan.
    assert re.search("ERROR: AddressSanitizer(.|\n)*(READ|WRITE) of size|with insufficient space", run.stderr)


def test_extension_touches_no_byte_outside_damaged_events(tmp_path: Path) -> None:
    run = sanitizing.run_extension(sanitizing.build_extension(tmp_path), 10_000)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("10000 ")
