"""The outbox: finished traces wait on disk for a backend that is not well. SQLite works in a thread of its own.

The loop's thread calls it, and nothing here waits for the disk except `close`. The answers come as `reports`:

- To `put`: Stored when it is committed, or Refused. A refused trace is still in memory and in the journal.
- To `take`: Taken, with the traces to send, or with none. Each must be returned by `give_back` or `remove`.
- Waiting: how many traces a directory holds, each time that this may have changed, also by another collector.
- Unknown: that cannot be told, because the directory's file fails.
- Gone: the oldest traces were dropped to make room.
- Delivered: traces that a killed predecessor had taken arrived, and are deleted.

Each trace's config names its state directory. If that cannot be used, or is on a network file system, on which SQLite's
log does not work, the collector's own folder takes its place and one warning says so. A file that cannot be used (no
space, read-only) refuses traces and is tried again later. A corrupt file is set aside first.
"""

import logging
import threading
from collections.abc import Container

from epsagon_fast.collector.background import Background
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.outbox.directory import LOOK_S, StateDirectory
from epsagon_fast.collector.sending.outbox.file import LIMIT_BYTES
from epsagon_fast.collector.sending.outbox.messages import Orders, Report


class Outbox:
    """The outbox files that one collector uses.

    `folder`: its own; `owner`: the same for it and its successors; `arrived`: the last traces of its predecessor that
    arrived.
    """

    def __init__(
        self,
        folder: str,
        owner: bytes,
        *,
        log: logging.Logger,
        limit_bytes: int = LIMIT_BYTES,
        arrived: Container[bytes] = (),
    ) -> None:
        self._folder = folder
        self._owner = owner
        self._log = log
        self._limit_bytes = limit_bytes
        self._arrived = arrived
        self._changed = threading.Condition()
        # The lock of _changed guards these.
        self._orders: dict[str, Orders] = {}
        self._reports: list[Report] = []
        self._thread: Background | None = None
        self._closing = False
        # Only the thread uses these.
        self._directories: dict[str, StateDirectory] = {}

    def watch(self, state_dir: str) -> None:
        """Look now and then for traces that other collectors left there. Nothing is created before the first `put`."""
        self._ask(state_dir)

    def put(self, parcel: Parcel) -> None:
        """Store a trace."""
        with self._changed:
            self._ask(parcel.destination.state_dir).puts.append(parcel)

    def take(self, destination: Destination, limit: int) -> None:
        """Lease up to `limit` traces of a destination."""
        with self._changed:
            self._ask(destination.state_dir).takes[destination] = limit

    def give_back(self, parcel: Parcel) -> None:
        """Put a trace that was taken behind the others."""
        with self._changed:
            self._ask(parcel.destination.state_dir).give_back.append(parcel.trace_id)

    def remove(self, parcel: Parcel) -> None:
        """Delete a trace that was taken."""
        with self._changed:
            self._ask(parcel.destination.state_dir).remove.append(parcel.trace_id)

    def reports(self) -> list[Report]:
        """Return the reports since the last call."""
        if not self._reports:
            return []
        with self._changed:
            reports, self._reports = self._reports, []
        return reports

    def close(self, timeout_s: float) -> None:
        """Carry out the orders, for at most timeout_s, and end this collector's leases."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.wait(timeout_s)

    def _ask(self, state_dir: str) -> Orders:
        with self._changed:
            asked = self._orders.setdefault(state_dir, Orders())
            if self._thread is None and not self._closing:
                self._thread = Background(self._run)
            self._changed.notify()
        return asked

    def _run(self) -> None:
        while (orders := self._next()) is not None:
            for state_dir, asked in orders.items():
                directory = self._directories.get(state_dir)
                if directory is None:
                    directory = self._directories[state_dir] = StateDirectory(
                        state_dir, self._folder, self._log, self._limit_bytes, self._owner, self._arrived
                    )
                reports = directory.serve(asked)
                with self._changed:
                    self._reports += reports
            # Else the bodies would stay in memory until there is work again.
            del orders
        for directory in self._directories.values():
            directory.close()

    def _next(self) -> dict[str, Orders] | None:
        """Wait for orders. After LOOK_S without any, look at every directory. None: the outbox is closed."""
        with self._changed:
            if not self._orders and not self._closing:
                self._changed.wait(LOOK_S)
            orders, self._orders = self._orders, {}
            if not orders:
                return None if self._closing else {state_dir: Orders() for state_dir in self._directories}
            return orders
