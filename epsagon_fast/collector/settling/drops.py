"""Keeps what each process lost, by reason, until one of its traces has told the backend.

Reasons are those of the process itself (REFUSALS, counted in its ring) and the collector's: records that came late or
for no trace, traces that were dropped or rejected. Each is told once, in the metadata `dropped_records` of the
process's next trace that is delivered.
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping

from epsagon_fast.hints import TypeVar
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue.reader import Reader

T = TypeVar("T")

# The bound of processes with something untold, and of traces under way that tell something.
REMEMBERED = 10_000
# The outcomes of a trace that does not arrive, by name: comparing outcomes costs several times as much, for each trace.
LOSSES = frozenset({Outcome.REJECTED.name, Outcome.DROPPED.name})


class Drops:
    """The losses of all rings, by ring id. A ring's header says which of its own refusals have been told."""

    def __init__(self) -> None:
        self._untold: OrderedDict[bytes, Counter[str]] = OrderedDict()
        self._carried: OrderedDict[bytes, tuple[bytes, Counter[str]]] = OrderedDict()

    def count(self, ring_id: bytes, reasons: Mapping[str, int]) -> None:
        """Add losses of a ring's process."""
        if reasons:
            self._untold.setdefault(ring_id, Counter()).update(reasons)
            _bound(self._untold)

    def take_over(self, reader: Reader) -> None:
        """Note the refusals in a ring's header that were not told yet. The ring may then go."""
        self.count(reader.ring_id, reader.take_refusals())

    @property
    def has_untold(self) -> bool:
        """Whether any process has untold losses: nearly always none has."""
        return bool(self._untold)

    def text_for(self, ring_id: bytes) -> str | None:
        """Return the untold losses of a ring's process as JSON; None: there are none."""
        untold = self._untold.get(ring_id)
        return json.dumps(dict(sorted(untold.items())), separators=(",", ":")) if untold else None

    def carried(self, trace_id: bytes, ring_id: bytes) -> None:
        """Note that a trace tells all untold losses of a ring's process."""
        self._carried[trace_id] = ring_id, self._untold.pop(ring_id)
        _bound(self._carried)

    def settled(self, trace_ids: Iterable[bytes], outcome: Outcome) -> None:
        """Note an outcome of traces. If they do not arrive, their losses are untold again."""
        for trace_id in trace_ids if self._carried else ():
            carried = self._carried.pop(trace_id, None)
            if carried is not None and outcome.name in LOSSES:
                ring_id, reasons = carried
                self.count(ring_id, reasons)


def _bound(remembered: OrderedDict[bytes, T]) -> None:
    if len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
