"""Sends requests of finished traces. Each is made once; what became of it is a Verdict.

`submit` and `verdicts` are for one loop thread and wait neither for the network nor for a new thread. Sender threads,
from `threads_min` to `threads_max` as the backlog asks, make the requests. A destination that hangs cannot take them
all: they wait in one lane per destination, and a lane may hold at most as many senders as are left for the others. So
one destination gets up to half of them, two a third each, and a newcomer finds one free.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from epsagon_fast.collector import spared
from epsagon_fast.collector.background import Background
from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.answer import Failure, Response
from epsagon_fast.collector.sending.arrived import Arrived
from epsagon_fast.collector.sending.verdict import ARRIVED, Judge, Verdict
from epsagon_fast.hints import TYPE_CHECKING
from epsagon_fast.rows import NamedTuple, maker

if TYPE_CHECKING:
    from epsagon_fast.collector.sending.exchange import Pools

# A sender that has finished takes the next request itself. Another one is woken when a request has waited this long and
# none was made meanwhile, as two that take turns with the interpreter cost more than one; and when one has waited for
# this long, because the others do not keep up. Then one more may start, too. While requests are being made the next one
# starts so long after it: where the processor is short more senders take more of it, most to begin a TLS connection.
WAKE_S = 0.002
PATIENCE_S = 0.02
# A kept connection over which nothing went for this long is closed, at the latest after twice that.
IDLE_S = 60.0


class _Lane:
    def __init__(self, key: tuple[str, str | None]) -> None:
        self.key = key
        self.waiting: deque[_Request] = deque()
        self.in_flight = 0


class _Request(NamedTuple):
    lane: _Lane
    parcels: Sequence[Parcel]
    size_bytes: int
    since: float


class _Done(NamedTuple):
    """A request that was made, without its parcels."""

    lane: _Lane
    size_bytes: int
    verdict: Verdict


_request, _done = maker(_Request), maker(_Done)


class Delivery:
    """The senders of one collector. Threads are daemons, so they never keep a process from ending."""

    def __init__(
        self, *, log: logging.Logger, threads_min: int = 4, threads_max: int = 64, arrived: Arrived | None = None
    ) -> None:
        """`arrived`: where is noted at once which traces arrived."""
        # urllib3's log may quote whole URLs, which may hold secrets.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._judge = Judge(log)
        self._arrived = arrived
        self._threads_min = threads_min
        self._threads_max = threads_max
        # It guards all attributes below. Taken by itself, as the condition would take it in Python.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._pools: Pools | None = None
        self._lanes: dict[tuple[str, str | None], _Lane] = {}
        self._done: list[_Done] = []
        self._threads = self._busy = self._idle = 0
        # Of the idle ones, those that were woken and did not come to themselves yet.
        self._woken = 0
        # One for each sender that has not had the processor yet. Adding and taking are single steps of the interpreter.
        self._coming: list[None] = []
        self._pending = self._pending_bytes = 0
        # When a request was made, a sender started, and connections were looked through.
        self._made_at = self._started_at = self._tidied_at = time.monotonic()
        self._closing = False

    @property
    def pending(self) -> int:
        """Count the traces that were submitted and whose verdicts were not taken yet."""
        return self._pending

    @property
    def pending_bytes(self) -> int:
        """Return the size of the pending traces' bodies."""
        return self._pending_bytes

    @property
    def threads(self) -> int:
        """Count the sender threads."""
        return self._threads

    def prepare(self) -> None:
        """Have a sender import what it will need, if there is none yet."""
        with self._lock:
            if self._threads or self._closing:
                return
            self._threads += 1
        self._start()

    def submit(self, parcels: Sequence[Parcel]) -> None:
        """Let a sender make one request of these, which all have one destination. Never waits.

        Raises RuntimeError after `close`.
        """
        now = time.monotonic()
        destination, size_bytes = parcels[0].destination, sum([len(parcel.body) for parcel in parcels])
        with self._lock:
            if self._closing:
                raise RuntimeError("delivery is closed")
            key = destination.url, destination.proxy_url
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane(key)
            lane.waiting.append(_request((lane, parcels, size_bytes, now)))
            self._pending += len(parcels)
            self._pending_bytes += size_bytes
            starts, _ = self._grow(now)
        if starts:
            self._start()

    def lags(self, now: float) -> bool:
        """Say whether a request waits for longer than a sender should take. Then `verdicts` may add one."""
        with self._lock:
            return any(lane.waiting and now - lane.waiting[0].since > PATIENCE_S for lane in self._lanes.values())

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts since the last call. Call it often, because it also adds senders."""
        now = time.monotonic()
        with self._lock:
            done, self._done = self._done, []
            self._pending -= sum([len(each.verdict.trace_ids) for each in done])
            self._pending_bytes -= sum([each.size_bytes for each in done])
            pools = self._pools if now - self._tidied_at > IDLE_S else None
            if pools:
                self._tidied_at = now
            # More than one, since this may be called seldom.
            starts, more = self._grow(now)
            while more:
                starts, more = self._grow(now)
        if pools:
            pools.tidy()
        if starts:
            self._start()
        return [each.verdict for each in done]

    def close(self, timeout_s: float) -> None:
        """Send what was submitted, for at most timeout_s. A trace without a verdict then may have arrived or not."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._threads, timeout_s)
            self._lanes.clear()
            pools = self._pools
        if pools:
            pools.clear()

    def _grow(self, now: float) -> tuple[bool, bool]:
        """Wake a sender if a request waits for one. Return whether one should be started, and another one woken."""
        lane = self._next_lane()
        if lane is None or self._closing:
            return False, False
        waited_s = now - lane.waiting[0].since
        if self._idle > self._woken:
            are_slow = min(waited_s, now - self._made_at) >= WAKE_S or waited_s > PATIENCE_S
            if are_slow or (self._idle == self._threads and not self._woken):
                self._woken += 1
                self._changed.notify()
                return False, self._count_waiting() > self._woken
            return False, False
        if self._threads >= self._threads_min:
            are_fast = now - self._made_at < WAKE_S and now - self._started_at <= PATIENCE_S
            if waited_s <= PATIENCE_S or are_fast or self._coming or self._threads >= self._threads_max:
                return False, False
        elif len(self._coming) >= self._count_waiting():
            return False, False
        self._threads += 1
        self._started_at = now
        return True, False

    def _count_waiting(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def _start(self) -> None:
        self._coming.append(None)
        try:
            Background(self._send_all)
        except RuntimeError:
            # The system has no thread left. The existing senders go on, and the next call tries again.
            self._coming.pop()
            with self._lock:
                self._threads -= 1

    def _next_lane(self) -> _Lane | None:
        """Return the lane that may and should go next: the one with the fewest requests in flight."""
        free = self._threads_max - self._busy
        if len(self._lanes) == 1:
            (lane,) = self._lanes.values()
            return lane if lane.waiting and lane.in_flight < free else None
        open_lanes = (lane for lane in self._lanes.values() if lane.waiting and lane.in_flight < free)
        return min(open_lanes, key=lambda lane: lane.in_flight, default=None)

    def _send_all(self) -> None:
        self._coming.pop()
        # If this fails, each trace gets a verdict that says so.
        with suppress(Exception):
            self._opened_pools()
        done: _Done | None = None
        while (request := self._take(done)) is not None:
            done = _done((request.lane, request.size_bytes, self._attempt(request.parcels)))
            # Otherwise the bodies would stay in memory until this thread has work again.
            del request

    def _take(self, done: _Done | None) -> _Request | None:
        """Note what was done, and wait for a request to make. None: this thread is not needed any more."""
        with self._lock:
            if done is not None:
                self._finish(done)
                del done
            while (lane := self._next_lane()) is None:
                if self._closing or self._idle >= self._threads_min:
                    self._threads -= 1
                    self._changed.notify_all()
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
                self._woken = max(0, self._woken - 1)
            self._busy += 1
            lane.in_flight += 1
            return lane.waiting.popleft()

    def _finish(self, done: _Done) -> None:
        lane = done.lane
        self._busy -= 1
        lane.in_flight -= 1
        self._made_at = done.verdict.at
        if self._arrived is not None and done.verdict.outcome.name == ARRIVED:
            self._arrived.note(done.verdict.trace_ids)
        self._done.append(done)
        if not lane.in_flight and not lane.waiting:
            self._lanes.pop(lane.key, None)

    def _attempt(self, parcels: Sequence[Parcel]) -> Verdict:
        try:
            return self._judge.answered(parcels, self._ask(parcels[0].destination, parcels))
        except Failure as failure:
            return self._judge.failed(parcels, failure)
        except Exception as error:
            # A trace gets a verdict even if the fault is ours. Only the type, because the message may quote a header.
            return self._judge.failed(parcels, Failure("internal", type(error).__name__))

    def _ask(self, destination: Destination, parcels: Sequence[Parcel]) -> Response:
        pools = self._pools or self._opened_pools()
        return pools.send(format_for(destination).post(parcels), destination)

    def _opened_pools(self) -> "Pools":
        # Not imported with this module: it takes as long as all else in a collector, and meanwhile rings fill.
        from epsagon_fast.collector.sending.exchange import Pools

        spared.import_now()
        with self._lock:
            self._pools = self._pools or Pools()
            return self._pools
