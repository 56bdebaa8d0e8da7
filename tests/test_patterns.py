"""Expressions that are compiled with their first use."""

import re

from epsagon_fast.patterns import pattern


def test_it_stands_for_the_compiled_expression() -> None:
    text, flags = r"(?P<word>[a-z]+)=", re.IGNORECASE
    ours, theirs = pattern(text, flags), re.compile(text, flags)
    assert (ours.pattern, ours.flags, ours.groupindex) == (theirs.pattern, theirs.flags, theirs.groupindex)
    found = ours.search("2 A=3")
    assert found is not None
    assert found["word"] == "A"
    assert ours.sub("", "2 A=3") == "2 3"


def test_bytes_have_one_too() -> None:
    assert pattern(rb"\d+").findall(b"a1b22") == [b"1", b"22"]


def test_its_members_are_looked_up_once() -> None:
    ours = pattern("a")
    assert ours.fullmatch is ours.fullmatch
