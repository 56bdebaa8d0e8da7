import linecache
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

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


CODE = compile("def fail():\n    raise Failure('boom')\n", "name", "exec")
# Names that no file can have, and the beginnings of files that cannot be read as text.
NO_NAMES = ("/a\0b", "a\0b", "/\ud800.py", "\ud800.py", "")
NO_TEXTS = (b"# coding: hex", b"# coding: rot13", b"# coding: undefined", b"# coding: utf-16", b"# coding: no", b"\xff")


def failing_in(name: str, **names: Any) -> Callable[[], None]:
    """Return a function that raises, of a file with that name."""
    here = {"Failure": Failure, **names}
    exec(renamed(CODE, name), here)
    fail: Callable[[], None] = here["fail"]
    return fail


def renamed(code: CodeType, name: str) -> CodeType:
    inner = (renamed(each, name) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_filename=name, co_consts=tuple(inner))


def told(fail: Callable[[], None]) -> str:
    """Return the traceback of what a function raises, also as a part of a group."""
    with pytest.raises(Failure) as raised:
        fail()
    text = stack.of_exception(raised.value)
    with pytest.raises(ExceptionGroup) as group:
        raise ExceptionGroup("one", [raised.value])
    inside = stack.of_exception(group.value)
    assert all(line.strip() in inside for line in text.splitlines())
    return text


def test_file_that_cannot_be_read_costs_its_own_lines_only(tmp_path: Path) -> None:
    names = list(NO_NAMES)
    for number, start in enumerate(NO_TEXTS):
        file = tmp_path / f"{number}.html"
        file.write_bytes(start + b"\n{{ boom }}\n\xff")
        names.append(str(file))
    for name in names:
        text = told(failing_in(name))
        assert "fail()\n" in text
        assert f'File "{name}", line 2, in fail\n' in text
        assert text.endswith("Failure: boom\n")


def test_loader_that_fails_costs_its_own_lines_only() -> None:
    def get_source(name: str) -> str:
        raise LookupError(name)

    loader = SimpleNamespace(get_source=get_source)
    text = told(failing_in("/no/such/archive/x.py", __name__="x", __loader__=loader))
    assert text.endswith('archive/x.py", line 2, in fail\ntest_stack.Failure: boom\n')


def test_relative_name_is_a_file_only_of_its_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.py").write_text("one\n    the second line\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "the second line" not in told(failing_in("x.py"))
    assert "the second line" not in told(failing_in("x.py", __file__="/built/x.so"))
    assert "the second line" in told(failing_in("x.py", __file__="x.py"))
