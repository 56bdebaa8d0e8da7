"""The CRC-32 of the journal's frames: zlib's, computed faster."""

import re
import zlib
from pathlib import Path

import pytest
import sanitizing
from hypothesis import example, given
from hypothesis import strategies as st

from epsagon_fast.queue import ring

# The divisor, its highest power in the highest bit.
P = 0x104C11DB7
HEADER = sanitizing.QUEUE / "crc.h"


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
@example(bytes(16), 0)
@example(b"\xff" * 65536, 2**32 - 1)
def test_it_is_that_of_zlib(data: bytes, value: int) -> None:
    assert ring.crc32(data, value) == ring.crc32(memoryview(data), value) == zlib.crc32(data, value)


def test_it_is_that_of_zlib_at_every_length() -> None:
    data = bytes(number * number % 251 for number in range(700))
    lengths = [length for length in range(len(data)) if ring.crc32(data[:length], 7) != zlib.crc32(data[:length], 7)]
    assert not lengths


@given(st.lists(st.binary(max_size=90), min_size=2, max_size=4))
def test_one_goes_on_from_the_other(parts: list[bytes]) -> None:
    value = 0
    for part in parts:
        value = ring.crc32(part, value)
    assert value == zlib.crc32(b"".join(parts))


@pytest.mark.parametrize("wrong", [("text", 0), ([20], 0), (b"", "0"), (b"", None)])
def test_what_is_no_bytes_has_none(wrong: tuple[bytes, int]) -> None:
    if ring.IMPLEMENTATION == "compiled":
        with pytest.raises(TypeError):
            ring.crc32(*wrong)


def test_the_constants_are_what_the_header_says() -> None:
    constants = {name: int(value, 16) for name, value in re.findall(r"#define CRC_(\w+) 0x(\w+)", HEADER.read_text())}
    powers = {name: int(name[1:]) for name in constants if re.fullmatch(r"X\d+", name)}
    assert len(powers) == 5
    assert {name: constants.pop(name) for name in powers} == {
        name: mirrored(divided(1 << power, P)[1], 32) << 1 for name, power in powers.items()
    }
    assert constants == {"P": mirrored(P, 33), "QUOTIENT": mirrored(divided(1 << 64, P)[0], 33)}


def test_it_reads_nothing_outside(tmp_path: Path) -> None:
    run = sanitizing.run_crc(tmp_path, 20_000, 1, *sanitizing.QUICK)
    assert sanitizing.fault({"crc": run}) is None


def test_a_wrong_constant_would_be_noticed(tmp_path: Path) -> None:
    text = HEADER.read_text()
    (tmp_path / "crc.h").write_text(text.replace("0x1c6e41596", "0x1c6e41594"))
    run = sanitizing.run_crc(tmp_path, 1000, 1, *sanitizing.QUICK, headers=tmp_path)
    assert run.returncode == folds()


def folds() -> bool:
    """Whether this processor can multiply without carries."""
    try:
        return " pclmulqdq" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def divided(number: int, by: int) -> tuple[int, int]:
    """Return quotient and remainder of polynomials over two elements, bit by bit."""
    quotient = 0
    while number.bit_length() >= by.bit_length():
        shift = number.bit_length() - by.bit_length()
        number ^= by << shift
        quotient |= 1 << shift
    return quotient, number


def mirrored(number: int, bits: int) -> int:
    """Return a number of so many bits from the other end."""
    return int(f"{number:0{bits}b}"[::-1], 2)
