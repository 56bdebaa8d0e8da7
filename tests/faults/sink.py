"""A backend that keeps of each trace only what the law needs: its events' ids, and how it ended.

Bodies are not kept: a soak sends gigabytes. Ids look like `3f9a0c1d-17`: a process's own name and a number.
"""

import asyncio
import re
import threading
from collections.abc import Callable
from typing import NamedTuple

HOST = "127.0.0.1"
ID = re.compile(rb'"id":"([0-9a-f]{8}-\d+)"')
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_KEY = re.compile(rb"(?i)\r\nidempotency-key: *([0-9a-f]{32})")
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Arrival(NamedTuple):
    """One trace as it came first."""

    ids: tuple[str, ...]
    died: bool
    unfinished: bool
    size_bytes: int


class Sink:
    """Answers 200 to every POST, from a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self.traces: dict[str, Arrival] = {}
        self.ids: set[str] = set()
        self.duplicates = 0
        # Ids that stood in more than one trace, or twice in one.
        self.twice = 0
        self.on_trace: Callable[[Arrival], None] = lambda arrival: None
        self._connections: set[asyncio.BaseTransport] = set()
        self.port = port
        self.open()
        self.url = f"http://{HOST}:{self.port}/"

    def open(self) -> None:
        """Listen; after `close`, where it did before."""
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(60), "the sink does not begin to listen"

    def close(self) -> None:
        """Refuse connections from now on."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        assert not self._thread.is_alive(), "the sink does not end"

    def take(self, key: str, body: bytes) -> None:
        """Note what a request brought."""
        if key in self.traces:
            self.duplicates += 1
            return
        found = [each.decode() for each in ID.findall(body)]
        before = len(self.ids)
        self.ids.update(found)
        self.twice += before + len(found) - len(self.ids)
        tail = body[-2000:]
        arrival = Arrival(tuple(found), b'"ProcessDied"' in tail, b'"unfinished":"true"' in tail, len(body))
        self.traces[key] = arrival
        self.on_trace(arrival)

    def _run(self, ready: threading.Event) -> None:
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Connection(self), HOST, self.port, reuse_address=True, backlog=256)
        )
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        for transport in list(self._connections):
            transport.abort()  # type: ignore[attr-defined]
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


class _Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._sink._connections.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._sink._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end])
            length, key = _LENGTH.search(head), _KEY.search(head)
            assert length and key, head
            whole = end + 4 + int(length[1])
            if len(self._data) < whole:
                return
            self._sink.take(key[1].decode(), bytes(self._data[end + 4 : whole]))
            del self._data[:whole]
            self._transport.write(_OK)  # type: ignore[attr-defined]
