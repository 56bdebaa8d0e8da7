"""How long a client may take, and how many there may be: uvicorn bounds neither before a request is whole.

Each connection has EXCHANGE_S for a whole exchange: from its making, or the first byte of a further request, to the
last byte of the answer. Between exchanges uvicorn's own keep-alive time rules. Beyond uvicorn's `limit_concurrency`,
here the number of connections, the one goes whose last answer is longest ago: a newcomer is always served.
"""

import asyncio
import resource
import time

from uvicorn.protocols.http.h11_impl import H11Protocol

# A trace of the largest size at 50 KB a second.
EXCHANGE_S = 20.0
MAX_CONNECTIONS = 1000


def connections_max() -> int:
    """Return how many connections this process may serve: half of its descriptors are for other things."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft // 2)


class Connection(H11Protocol):
    """uvicorn's connection, with a deadline, and an end if it is one too many."""

    _answered_at = 0.0
    _deadline: asyncio.TimerHandle | None = None
    _dropped = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the first exchange; if there are too many connections, end another."""
        super().connection_made(transport)
        self._answered_at = time.monotonic()
        self._begin()
        # Those that were dropped are gone with the loop's next turn.
        there = [each for each in self.connections if isinstance(each, Connection) and not each._dropped]
        if self.limit_concurrency is not None and len(there) >= self.limit_concurrency:
            min(there, key=lambda each: each._answered_at)._drop()

    def data_received(self, data: bytes) -> None:
        """Begin an exchange, or go on with it."""
        self._begin()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """End an exchange."""
        # One that is closing may still have to send the answer to a client that does not read.
        if not self.transport.is_closing():
            self._end()
            self._answered_at = time.monotonic()
        super().on_response_complete()
        if not self.cycle.response_complete:
            # The next request was here already.
            self._begin()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, whether or not the client has read its last answer."""
        super().timeout_keep_alive_handler()
        self._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(EXCHANGE_S, self._drop)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _drop(self) -> None:
        self._dropped = True
        # Closing would wait until the client has read what is sent.
        self.transport.abort()
