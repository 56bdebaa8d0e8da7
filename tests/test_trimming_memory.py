import shutil
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
    "the wrong end of the last block": ("marks.h", "bytes + length - BLOCK_BYTES", "bytes + length - left"),
}


def test_core_touches_no_byte_outside_damaged_events_and_all_its_paths_agree(tmp_path: Path) -> None:
    digests = set()
    for flags in sanitizing.PATHS.values():
        run = sanitizing.run_core(sanitizing.build_core(tmp_path, *flags), 100_000)
        assert run.returncode == 0, run.stderr
        tried, reached, digest = run.stdout.split()
        assert int(tried) == 100_000
        assert int(reached) >= 50_000
        digests.add(digest)
    assert len(digests) == 1


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_core_is_found(tmp_path: Path, mistake: tuple[str, str, str]) -> None:
    name, right, wrong = mistake
    headers = Path(shutil.copytree(sanitizing.SOURCES, tmp_path / "headers", ignore=shutil.ignore_patterns("*.c")))
    source = (headers / name).read_text()
    assert source.count(right) == 1
    (headers / name).write_text(source.replace(right, wrong))
    run = sanitizing.run_core(sanitizing.build_core(tmp_path, headers=headers), 100_000)
    assert "ERROR: AddressSanitizer" in run.stderr
    assert "READ of size" in run.stderr


def test_extension_touches_no_byte_outside_damaged_events(tmp_path: Path) -> None:
    run = sanitizing.run_extension(sanitizing.build_extension(tmp_path), 10_000)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("10000 ")
