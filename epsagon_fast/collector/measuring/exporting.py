"""Says when metrics of requests are sent to destinations that speak OTLP: once a minute, and at the collector's end.

All of it happens in a thread that lives as long as one round (rounds.py), so the loop does not wait for it.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial

from epsagon_fast.collector.background import Background
from epsagon_fast.collector.measuring.requests import Application
from epsagon_fast.digits import number
from epsagon_fast.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from epsagon_fast.collector.measuring.rounds import Rounds

INTERVAL_S = 60.0
# A leaving collector waits this long for its last round; the second is for one that was told to leave.
LAST_ROUND_S = 3.0
LAST_HURRIED_S = 0.3


class Exporter:
    """The rounds of one collector. `folder_fd`: of the ledger; it stays open. `instance_id`: no other ledger has it."""

    def __init__(self, folder_fd: int, instance_id: str) -> None:
        self._folder_fd = folder_fd
        self._instance_id = instance_id
        self._interval_s = interval_s()
        self._due = 0.0
        self._rounds: Rounds | None = None
        self._round: Background | None = None

    def step(self, applications: Callable[[], Sequence[Application]], now: float) -> None:
        """Begin a round if it is time. `now` is monotonic seconds."""
        if not self._due:
            self._due = now + self._interval_s
        elif now >= self._due and not self._is_busy:
            self._due = now + self._interval_s
            self._begin(applications())

    def begin_last(self, applications: Callable[[], Sequence[Application]]) -> None:
        """Begin the last round, unless one is under way."""
        if not self._is_busy:
            self._begin(applications())

    def end(self, hurries: bool) -> None:
        """Wait a moment for the last round."""
        if self._round is not None:
            self._round.wait(LAST_HURRIED_S if hurries else LAST_ROUND_S)

    @property
    def _is_busy(self) -> bool:
        return self._round is not None and not self._round.is_over

    def _begin(self, applications: Sequence[Application]) -> None:
        if not applications or self._interval_s <= 0:
            return
        if self._rounds is None:
            # Few destinations speak OTLP, so it is imported beside the loop (spared.py).
            from epsagon_fast.collector.measuring.rounds import Rounds

            self._rounds = Rounds(self._folder_fd, self._instance_id)
        mine = self._rounds.wanted(applications)
        if not mine:
            return
        try:
            self._round = Background(partial(self._rounds.send, mine))
        except RuntimeError:
            # The system has no thread left. The next round tries again.
            self._round = None


def interval_s() -> float:
    """Return OTEL_METRIC_EXPORT_INTERVAL in seconds, or the default if it is no number; 0: metrics are not exported."""
    exporters = [each.strip().lower() for each in os.environ.get("OTEL_METRICS_EXPORTER", "otlp").split(",")]
    # Some SDKs name the protocol behind it. One that names `prometheus` alone wants its metrics fetched, not sent.
    if any(exporters) and not any(each.startswith("otlp") for each in exporters):
        return 0.0
    said = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    return (number(said, most=9) or 0) / 1000 or INTERVAL_S
