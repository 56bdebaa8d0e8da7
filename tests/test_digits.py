"""Whole numbers from outside."""

from hypothesis import example, given
from hypothesis import strategies as st

from epsagon_fast.digits import MOST_DIGITS, number, signed


@given(st.integers(0, 10**MOST_DIGITS - 1))
@example(0)
@example(10**MOST_DIGITS - 1)
def test_digits_are_the_number_that_they_say(value: int) -> None:
    assert number(str(value)) == number(b"%d" % value) == signed(str(value)) == value
    assert signed(f"-{value}") == -value


@given(st.text(max_size=30))
@example("")
@example("-")
@example("--1")
@example("+1")
@example("1_0")
@example(" 1")
@example("1\n")
@example("\u0661")
@example("\u00b2")
@example("1" * (MOST_DIGITS + 1))
@example("9" * 5000)
def test_nothing_else_is_a_number(text: str) -> None:
    is_number = 0 < len(text) <= MOST_DIGITS and set(text) <= set("0123456789")
    assert (number(text) is not None) is is_number
    assert (number(text.encode("utf-8", "replace")) is not None) is is_number
    assert number(text, 0) is None
    if not text.startswith("-"):
        assert (signed(text) is not None) is is_number
