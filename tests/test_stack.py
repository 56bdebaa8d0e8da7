import linecache
import re
import sys
import traceback
from collections.abc import Callable

import pytest
from interrupting import at_each_step

from epsagon_fast.producer import stack


class Failure(Exception):
    pass


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    {}["key"]


def with_cause() -> None:
    try:
        deep(20)
    except KeyError as error:
        error.add_note("a note\nof two lines")
        raise Failure("two\nlines") from error


def with_context() -> None:
    try:
        with_cause()
    except Failure:
        raise OSError(2, "no") from None
    finally:
        deep(0)


def in_a_circle() -> None:
    one, other = Failure("one"), Failure("other")
    one.__cause__, other.__cause__ = other, one
    raise one


def of_a_group() -> None:
    raise ExceptionGroup("several", [Failure(), KeyError("k")])


def of_syntax() -> None:
    compile("a b", "<file>", "exec")


def without_carets(text: str) -> str:
    return re.sub(r"\n +[~^]+(?=\n)", "", text)


@pytest.mark.parametrize("fail", [deep, with_cause, with_context, in_a_circle, of_a_group, of_syntax])
def test_traceback_is_the_librarys_but_for_the_carets(fail: Callable[..., None]) -> None:
    try:
        fail(*[3][: fail.__code__.co_argcount])
    except Exception as error:
        expected = "".join(traceback.format_exception(error))
        assert without_carets(stack.of_exception(error)) == without_carets(expected)


def test_stack_of_a_caller_is_the_librarys() -> None:
    frame = sys._getframe()
    there, expected = stack.of_caller(frame), "".join(traceback.format_stack(frame))
    assert there == "Stack (most recent call last):\n" + expected


def test_exception_that_was_never_raised_has_no_traceback() -> None:
    assert stack.of_exception(Failure()) == ""


def test_alarm_while_source_is_read_reaches_the_application() -> None:
    """The library's own reading swallows an OSError, which an alarm may raise."""
    with pytest.raises(KeyError) as raised:
        deep(0)

    def once() -> None:
        linecache.cache.clear()
        assert '{}["key"]' in stack.of_exception(raised.value)

    for _ in at_each_step(once):
        pass


def test_source_is_left_to_the_library_as_it_leaves_it_itself() -> None:
    linecache.cache.clear()
    theirs = linecache.getlines(__file__), linecache.cache[__file__]
    linecache.cache.clear()
    assert (stack._read(__file__, globals()), linecache.cache[__file__]) == theirs
