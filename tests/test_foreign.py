"""How texts of others are shown: no terminal obeys them, no line is forged, no secret of a URL is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsagon_fast.foreign import escaped, origin, shown

ESCAPE = "\x1b]0;owned\x07\n2026-11-28 WARNING all is well\u202e"


@given(said=st.one_of(st.text(), st.binary()), limit=st.integers(0, 20))
def test_what_is_shown_is_printable_and_bounded(said: str | bytes, limit: int) -> None:
    text = shown(said, limit)
    assert text.isprintable()
    # An escape may have ten characters.
    assert len(text) <= 10 * limit + 5
    assert escaped(str(said)).isprintable()


def test_what_is_shown_says_where_it_was_cut() -> None:
    assert shown("abc", 3) == "'abc'"
    assert shown("abcd", 3) == "'abc'..."
    assert shown([1, 2, 3], 4) == "[1, ..."


def test_an_exception_is_shown_by_its_text() -> None:
    assert shown(OSError(ESCAPE)) == repr(ESCAPE)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://me:secret@host:8443/secret?secret#secret", "https://host:8443"),
        ("http://secret@[::1]:80/", "http://[::1]:80"),
        ("http://[::1", "an unreadable URL"),
        ("http://host:secret/", "an unreadable URL"),
        ("secret", "an unreadable URL"),
        (f"http://{ESCAPE}/", "an unreadable URL"),
        (f"http://{'h' * 1000}/", "an unreadable URL"),
    ],
)
def test_of_a_url_only_the_origin_is_told(url: str, told: str) -> None:
    assert origin(url) == told
