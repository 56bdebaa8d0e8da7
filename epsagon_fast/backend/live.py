"""New rows of the list as server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from epsagon_fast.backend.filters import Filter
from epsagon_fast.backend.store import Store

# The browser asks again, with the last event's id, so nothing is missed: no connection is there for ever.
STREAM_S = 15.0
# Another process may write to the file, too.
_LOOK_S = 2.0
# The backend may be told to stop.
_TURN_S = 0.5
# What comes meanwhile is sent together.
_PAUSE_S = 0.1
_ROWS = 100


class Live:
    """Tells streams that traces have come. Used in the event loop's thread alone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: set[asyncio.Event] = set()
        # Says whether the server is about to stop; it knows that once it exists.
        self.is_stopping: Callable[[], bool] = lambda: False

    def notify(self) -> None:
        """Say that a trace was kept."""
        for event in self._waiting:
            event.set()

    async def stream(self, wanted: Filter, after: float, shown: Callable[[dict[str, Any]], Any]) -> AsyncIterator[str]:
        """Yield an event for each trace that comes after `after`, a `received_at`. `shown`: makes its data of a row."""
        came = asyncio.Event()
        self._waiting.add(came)
        until = time.monotonic() + STREAM_S
        looked_at = 0.0
        try:
            yield "retry: 300\n\n"
            while time.monotonic() < until and not self.is_stopping():
                if came.is_set() or time.monotonic() > looked_at + _LOOK_S:
                    came.clear()
                    looked_at = time.monotonic()
                    rows, after = await run_in_threadpool(self._store.arrivals, after, _ROWS, wanted)
                    if len(rows) == _ROWS:
                        came.set()  # there may be more
                    for row in rows:
                        yield f"id: {row['received_at']!r}\ndata: {json.dumps(shown(row))}\n\n"
                await self._wait(came)
            # How far it has looked: what does not fit the filter need not be looked at again.
            yield f"id: {after!r}\n\n"
        finally:
            self._waiting.discard(came)

    async def _wait(self, came: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(came.wait(), _TURN_S)
            await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            pass
