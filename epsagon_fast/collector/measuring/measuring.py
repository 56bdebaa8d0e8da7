"""All that one collector measures. Its folders share it: what an orphan's processes did is counted here too."""

import logging
import os

import epsagon_fast.private as private
from epsagon_fast.collector.measuring.deliveries import Deliveries
from epsagon_fast.collector.measuring.exporting import Exporter
from epsagon_fast.collector.measuring.requests import Requests
from epsagon_fast.queue.ledger import Ledger
from epsagon_fast.queue.names import CORRUPT, LEDGER

log = logging.getLogger("epsagon_fast.collector")


class Measuring:
    """The folder's ledger, and what is counted in it."""

    def __init__(self, folder_fd: int, folder_id: bytes) -> None:
        ledger = _ledger(folder_fd)
        self.requests = Requests(ledger)
        self.deliveries = Deliveries(ledger)
        self._exporter = Exporter(folder_fd, folder_id.hex())

    def step(self, now: float) -> None:
        """Send metrics if it is time. `now` is monotonic seconds."""
        self._exporter.step(self.requests.applications, now)

    def begin_end(self) -> None:
        """Begin to send the last metrics."""
        self._exporter.begin_last(self.requests.applications)

    def end(self, hurries: bool) -> None:
        """Wait a moment until they are sent. `hurries`: a signal said to leave."""
        self._exporter.end(hurries)


def _ledger(folder_fd: int) -> Ledger | None:
    """Return the folder's ledger. A file in its place that is none is set aside. None: there is no room for one."""
    try:
        try:
            return Ledger(folder_fd)
        except (private.NotOurs, ValueError) as error:
            log.warning("%s is set aside: %s", LEDGER, error)
            os.rename(LEDGER, LEDGER + CORRUPT, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            return Ledger(folder_fd)
    except OSError as error:
        log.warning("requests and deliveries are not measured: %s", error.strerror)
        return None
