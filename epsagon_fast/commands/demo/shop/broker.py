"""A broker of files, as a shop has it that must not need a server. kombu's own, but a message is seen only when whole.

kombu writes a message, and its table of queues, into files that a worker may read at that moment. Then the worker ends.
"""

import json
import os
import time
import uuid
from typing import Any

from kombu.transport import filesystem, virtual


class WholeMessages(filesystem.Channel):
    """Moves each message to where the worker looks, and keeps the table in memory: each process declares its queue."""

    supports_fanout = False
    get_table = virtual.Channel.get_table

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]  # kombu's own two differ
        # The worker takes files in the order of their names, and those alone whose names end like this one.
        name = f"{time.monotonic_ns():020}_{uuid.uuid4()}.{queue}.msg"
        path = os.path.join(self.data_folder_out, name)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(json.dumps(payload))
        os.rename(path + ".new", path)


class Files(filesystem.Transport):
    """What celery is told to use."""

    Channel = WholeMessages
