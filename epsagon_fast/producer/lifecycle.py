"""What an application does once: `init`, `flush`, `shutdown`."""

import time
from collections.abc import Iterator
from typing import Any

from epsagon_fast.config import Config
from epsagon_fast.queue import writer as writers

from . import process
from .waiting import pauses


def init(**fields: Any) -> Config:
    """Say how traces that open from now on are traced: the fields of Config. Returns the config in force.

    The same fields again change nothing. After `shutdown` it makes tracing work again. TypeError or ValueError for what
    is not allowed, and ValueError for a runtime_dir or ring_bytes other than this process already uses.
    """
    return process.init(Config(**fields))


def flush(timeout_s: float = 2.0) -> bool:
    """Wait until no closed trace of this process is pending any more. Whether that is so after `timeout_s`."""
    for pause in _until_settled(timeout_s):
        time.sleep(pause)
    return _all_settled()


async def aflush(timeout_s: float = 2.0) -> bool:
    """Do what `flush` does, without holding up the event loop."""
    import asyncio

    for pause in _until_settled(timeout_s):
        await asyncio.sleep(pause)
    return _all_settled()


def shutdown(timeout_s: float | None = None) -> None:
    """Close this process's open traces as unfinished, flush, and refuse records until `init` is called again.

    Traces that another process opened, inherited or attached, stay open there.

    `timeout_s`: by default the config's shutdown_timeout_s, 2 seconds if it says nothing.
    """
    process.shut_down()
    for tracer in process.all_traces():
        tracer.abandon()
    flush(process.config().shutdown_timeout_s if timeout_s is None else timeout_s)


def _all_settled() -> bool:
    process.report_all()
    return not _unsettled()


def _unsettled() -> list[writers.Writer]:
    return [writer for writer in writers.known() if writer.settled < writer.closed]


def _until_settled(timeout_s: float) -> Iterator[float]:
    for pause in pauses(timeout_s):
        unsettled = _unsettled()
        if not unsettled:
            return
        for writer in unsettled:
            writer.ensure_collector()
        if not any(writer.collector_may_come() for writer in unsettled):
            return
        yield pause
