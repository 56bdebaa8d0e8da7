"""The folder is deleted while everything runs, as logind does at a user's last logout."""

import os
import shutil
import time

from places import times, until
from scenes import holds, scene
from waiting import TIMEOUT_S

TRIES = times(20, 3)
LOAD = """
import os, noting
pids = [noting.spawn(noting.until_stopped, 10, 1000, 0.002) for _ in range(3)]
codes = [os.waitpid(pid, 0)[1] for pid in pids]
assert codes == [0, 0, 0], codes
"""


def test_nothing_unread_is_missing_and_one_collector_serves_again() -> None:
    with scene("rm -rf of the folder", EPSAGON_RING_BYTES=str(2 << 20)) as here, here.start(LOAD) as load:
        lost: dict[str, int] = {}
        for number in range(TRIES):
            until(
                lambda: os.path.isdir(here.folder) and here.look().pid and here.look().gauges["rings"] == 3,
                lambda: f"all have moved to a new folder; {here.collectors()}\n{here.log()}",
            )
            # At another moment of the workers' second each time.
            time.sleep(number % 7 * 0.15)
            for reason, count in here.lost().items():
                lost[reason] = lost.get(reason, 0) + count
            shutil.rmtree(here.folder)
            here.row.tried += 1
        until(lambda: os.path.isdir(here.folder) and here.look().gauges.get("rings") == 3, "all have moved")
        here.stop()
        _, errors = load.communicate(timeout=TIMEOUT_S)
        assert load.returncode == 0, errors
        for reason, count in here.lost().items():
            lost[reason] = lost.get(reason, 0) + count
        noted = here.account(lost)
        holds(here.row)
        assert not lost
        assert not here.sink.twice
        assert not noted.opened - set(here.sink.traces)
        # Those of the deleted folders leave once their producers have moved.
        here.until_left()
