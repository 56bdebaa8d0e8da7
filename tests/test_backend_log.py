"""The log of the command `backend`: whatever clients do, it stays short and on its own lines."""

import io
import logging

import pytest

from epsagon_fast.backend import log


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[logging.Logger, io.StringIO, list[float]]:
    """A logger, what it wrote, and the time, which stands still."""
    written, now, logger = io.StringIO(), [1000.0], logging.Logger("test")
    handler = logging.StreamHandler(written)
    handler.addFilter(log.Sparing())
    handler.setFormatter(log.OneLine())
    logger.addHandler(handler)
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    return logger, written, now


def test_of_each_kind_one_line_a_minute_is_logged(lines: tuple[logging.Logger, io.StringIO, list[float]]) -> None:
    logger, written, now = lines
    for number in range(1000):
        logger.warning("request %d is invalid", number)
        logger.error("out of descriptors\nsocket: %d", number)
    now[0] += log.PAUSE_S
    logger.warning("request %d is invalid", 1000)
    assert written.getvalue().splitlines() == [
        "epsagon-fast backend: WARNING request 0 is invalid",
        "epsagon-fast backend: ERROR out of descriptors\\nsocket: 0",
        "epsagon-fast backend: WARNING request 1000 is invalid (and 999 more since the last such line)",
    ]


def test_an_exception_is_one_line(lines: tuple[logging.Logger, io.StringIO, list[float]]) -> None:
    logger, written, _ = lines
    try:
        raise ValueError("\x1b[2J\nepsagon-fast backend: all is well")
    except ValueError:
        logger.exception("Exception in ASGI application\n")
    (line,) = written.getvalue().splitlines()
    assert line.startswith("epsagon-fast backend: ERROR Exception in ASGI application: ValueError: '\\x1b[2J")


def test_kinds_without_end_take_no_memory() -> None:
    sparing = log.Sparing()
    for number in range(10 * log.MAX_KINDS):
        sparing.filter(logging.makeLogRecord({"msg": f"{number}"}))
    assert len(sparing._passed_at) <= log.MAX_KINDS
