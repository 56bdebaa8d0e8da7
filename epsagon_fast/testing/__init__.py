"""For the tests of applications: `capture_traces()` collects finished traces in memory, `reset()` forgets them all.

It starts no process and writes no file. For Django's test client see `epsagon_fast.testing.django`.
"""

from .capture import capture_traces, reset
from .tree import Node, Trace

__all__ = ["Node", "Trace", "capture_traces", "reset"]
