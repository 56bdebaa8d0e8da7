"""Whether a process lives: it keeps its locks for a while after it was killed."""

import os
import signal

import pytest
from dying import Dying
from waiting import until

from epsagon_fast.queue.liveness import LARGEST_PID, is_ending, lives, own_start_time


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_process_that_is_stopped_lives_until_it_is_killed(number: signal.Signals) -> None:
    with Dying() as dying:
        dying.kill(signal.SIGSTOP)
        assert not is_ending(dying.pid, dying.start_time)
        # Stopped, it does not get this one.
        dying.kill(signal.SIGTERM)
        assert not is_ending(dying.pid, dying.start_time)
        if number == signal.SIGKILL:
            dying.kill(number)
            assert is_ending(dying.pid, dying.start_time)
        dying.kill(signal.SIGCONT)
        until(lambda: is_ending(dying.pid, dying.start_time), "it ends")
        until(lambda: not lives(dying.pid, dying.start_time), "it is a zombie")
        assert is_ending(dying.pid, dying.start_time)


def test_own_process_lives_and_another_of_its_pid_has_ended() -> None:
    assert not is_ending(os.getpid(), own_start_time())
    assert is_ending(os.getpid(), own_start_time() + 1)
    assert is_ending(LARGEST_PID, 1)
