"""Prints tracebacks as the standard library does, without the carets.

The library's own function asks exceptions for their messages and swallows any exception meanwhile, even one that a
signal handler raises. So messages are asked for here, and the library only prints frames with given source lines.
"""

import io
import linecache
import os
import tokenize
import traceback
from collections.abc import Iterator
from types import FrameType

from epsagon_fast.hints import Any
from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer.plain import printed

HEAD = "Traceback (most recent call last):\n"
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"
MOST_LINKS = 50
# The library prints these whole, because they show more than frames and a message.
_SPECIAL = (SyntaxError, BaseExceptionGroup)
# Read through the slots, because a subclass may hide them.
_TRACEBACK, _CAUSE, _CONTEXT, _SUPPRESSED = (
    BaseException.__dict__[name] for name in ("__traceback__", "__cause__", "__context__", "__suppress_context__")
)
_EXCEPTIONS = BaseExceptionGroup.__dict__["exceptions"]
_DICT = BaseException.__dict__["__dict__"]
_MODULE, _QUALNAME = (type.__dict__[name] for name in ("__module__", "__qualname__"))


def of_exception(error: BaseException) -> str:
    """Return an exception's traceback, with those of its causes and contexts; "" if it was never raised."""
    if _TRACEBACK.__get__(error) is None:
        return ""
    parts: list[str] = []
    for link, why in _chain(error):
        parts.append(why)
        # Not isinstance, which asks the exception for its __class__, and that may fail.
        parts.append(_special(link) if issubclass(type(link), _SPECIAL) else _one(link))
    return "".join(reversed(parts))


def of_caller(frame: FrameType | None) -> str:
    """Return the stack that leads to a frame."""
    frames = [*traceback.walk_stack(frame)] if frame else []
    return "Stack (most recent call last):\n" + _printed(reversed(frames))


def _chain(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """Yield the exception, then its cause or context, and so on, each with the words that are printed after it."""
    seen: set[int] = set()
    link: BaseException | None = error
    why = ""
    while link is not None and id(link) not in seen and len(seen) < MOST_LINKS:
        seen.add(id(link))
        yield link, why
        cause = _CAUSE.__get__(link)
        why = CONTEXT if cause is None else CAUSE
        link = cause if cause is not None or _SUPPRESSED.__get__(link) else _CONTEXT.__get__(link)


def _one(error: BaseException) -> str:
    frames = [*traceback.walk_tb(_TRACEBACK.__get__(error))]
    module, name = _MODULE.__get__(type(error)), _QUALNAME.__get__(type(error))
    name = name if module in ("builtins", "__main__") else f"{module}.{name}"
    message = printed(error)
    notes = _DICT.__get__(error).get("__notes__")
    last = "".join(f"{printed(note)}\n" for note in notes) if type(notes) is list else ""
    return f"{HEAD if frames else ''}{_printed(frames)}{name}{': ' if message else ''}{message}\n{last}"


def _special(error: BaseException) -> str:
    """Return what the library prints of an exception, with the frames as they are printed here."""
    # Without its traceback and without a look at the lines of its parts' ones, because the library's reading may fail.
    whole = traceback.TracebackException(type(error), error, None, lookup_lines=False, compact=True)
    pending = [(whole, error)]
    while pending:
        part, error = pending.pop()
        part.stack = _stack(traceback.walk_tb(_TRACEBACK.__get__(error)))
        if part.exceptions:
            pending.extend(zip(part.exceptions, _EXCEPTIONS.__get__(error), strict=True))
    return "".join(whole.format(chain=False))


def _printed(frames: Any) -> str:
    return "".join(_stack(frames).format())


def _stack(frames: Any) -> traceback.StackSummary:
    return traceback.StackSummary.from_list([_summary(*each) for each in frames])


def _summary(frame: FrameType, line: int) -> traceback.FrameSummary:
    # Without columns, because for its carets the library parses each line, and swallows exceptions meanwhile.
    code = frame.f_code
    return traceback.FrameSummary(
        code.co_filename, line, code.co_name, lookup_line=False, line=_source_line(frame, line)
    )


def _source_line(frame: FrameType, line: int) -> str:
    """Return a line of source, from the library's cache if the file is there: looking into that raises nothing."""
    name = frame.f_code.co_filename
    known: Any = linecache.cache.get(name)
    lines = known[2] if known is not None and len(known) == 4 else _lines(name, frame.f_globals)
    return lines[line - 1] if 0 < line <= len(lines) else ""


def _lines(name: str, names: dict[str, Any]) -> list[str]:
    """Return a file's lines, none if they cannot be had. `names`: the globals of its code."""
    if not os.path.isabs(name) and names.get("__file__") != name:
        # The place where the code was built, and another file may have that name in the working directory.
        return []
    for read in _read, linecache.getlines:
        try:
            return read(name, names)
        except Exception as error:  # any of a codec, or of the application's own loader
            let_pass(error)
    return []


def _read(name: str, names: dict[str, Any]) -> list[str]:
    """Return a file's lines, and leave them in the library's cache.

    The library reads files too, and swallows any OSError meanwhile, even one that a signal handler raises. So it is
    asked only for what is no file of its own, but perhaps in an archive.
    """
    state = os.stat(name)
    with open(name, "rb") as file:
        text = file.read()
    lines = io.TextIOWrapper(io.BytesIO(text), tokenize.detect_encoding(io.BytesIO(text).readline)[0]).readlines()
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    linecache.cache[name] = (state.st_size, state.st_mtime, lines, name)
    return lines
