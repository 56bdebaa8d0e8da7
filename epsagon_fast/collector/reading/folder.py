"""The folder that is served, which may be deleted under the collector."""

import logging
import os

from epsagon_fast.queue import state as states
from epsagon_fast.queue.state import StatePage

log = logging.getLogger("epsagon_fast.collector")


class ServedFolder:
    """The folder whose rings are read. Once it is deleted, the rings that are mapped are served until they end."""

    def __init__(self, fd: int, path: str, state: StatePage) -> None:
        self.fd = fd
        self.gone = False
        self._path = path
        self._state = state
        self._inode = os.fstat(fd).st_ino

    def look(self) -> None:
        """Tell the processes, in the state page, once the path leads here no more."""
        if not self.gone and not self._is_there():
            self.gone = True
            self._state.store(states.GONE, 1)
            log.warning("the folder was deleted: serving the processes that are here until they leave")

    def _is_there(self) -> bool:
        try:
            return os.stat(self._path, follow_symlinks=False).st_ino == self._inode
        except OSError:
            return False
