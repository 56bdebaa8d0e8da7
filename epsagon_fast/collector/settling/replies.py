"""Tells processes, through their rings, the outcomes of the traces that they closed."""

from collections import OrderedDict
from collections.abc import Iterable

from epsagon_fast.protocol import Outcome
from epsagon_fast.queue.reader import Reader

# Traces with a second outcome to come, which no process waits for: stored ones leave the outbox one day, and one that
# sampling leaves out is sent after all if another trace of its request must be.
REMEMBERED = 10_000
_MAY_CHANGE = frozenset({Outcome.STORED.name, Outcome.SAMPLED.name})


class Replies:
    """The rings that wait for an outcome, by trace."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Reader] = {}
        self._told: OrderedDict[bytes, tuple[Reader, Outcome]] = OrderedDict()

    def expect(self, trace_ids: Iterable[bytes], reader: Reader) -> None:
        """Note that a process waits for the outcomes of traces."""
        for trace_id in trace_ids:
            if trace_id not in self._waiting:
                self._waiting[trace_id] = reader
                reader.unsettled += 1

    def settle(self, trace_ids: Iterable[bytes], outcome: Outcome) -> None:
        """Tell the processes an outcome of traces. STORED and SAMPLED may be followed by another outcome."""
        waiting, told, may_change = self._waiting, self._told, outcome.name in _MAY_CHANGE
        settled: dict[Reader, list[bytes]] = {}
        for trace_id in trace_ids:
            reader = waiting.pop(trace_id, None)
            if reader is not None:
                of_reader = settled.get(reader)
                if of_reader is None:
                    of_reader = settled[reader] = []
                of_reader.append(trace_id)
            elif trace_id in told:
                reader, before = told.pop(trace_id)
                if outcome == before:
                    continue
                reader.tell([trace_id], outcome)
            if reader is not None and may_change:
                told[trace_id] = reader, outcome
                if len(told) > REMEMBERED:
                    told.popitem(last=False)
        for reader, of_reader in settled.items():
            reader.settle(of_reader, outcome)

    def forget(self, reader: Reader) -> None:
        """Forget a ring that is unmapped."""
        self._waiting = {trace_id: each for trace_id, each in self._waiting.items() if each is not reader}
        self._told = OrderedDict((trace_id, told) for trace_id, told in self._told.items() if told[0] is not reader)
