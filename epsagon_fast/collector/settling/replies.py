"""Tells processes, through their rings, the outcomes of the traces that they closed."""

from collections import OrderedDict

from epsagon_fast.protocol import Outcome
from epsagon_fast.queue.reader import Reader

# Stored traces whose processes are told once more when they leave the outbox. They are not waited for.
REMEMBERED = 10_000


class Replies:
    """The rings that wait for an outcome, by trace."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Reader] = {}
        self._stored: OrderedDict[bytes, Reader] = OrderedDict()

    def expect(self, trace_id: bytes, reader: Reader) -> None:
        """Note that a process waits for the outcome of a trace."""
        if trace_id not in self._waiting:
            self._waiting[trace_id] = reader
            reader.unsettled += 1

    def settle(self, trace_id: bytes, outcome: Outcome) -> None:
        """Tell the process an outcome. STORED may be followed by another outcome."""
        reader = self._waiting.pop(trace_id, None)
        if reader is not None:
            reader.settle(trace_id, outcome)
        else:
            reader = self._stored.pop(trace_id, None)
            if reader is not None:
                reader.tell(trace_id, outcome)
        if reader is not None and outcome == Outcome.STORED:
            self._stored[trace_id] = reader
            if len(self._stored) > REMEMBERED:
                self._stored.popitem(last=False)

    def forget(self, reader: Reader) -> None:
        """Forget a ring that is unmapped."""
        for waiting in (self._waiting, self._stored):
            for trace_id in [trace_id for trace_id, each in waiting.items() if each is reader]:
                del waiting[trace_id]
