"""The open traces by their ids: a table in C that looks ahead (see _ext/collector/table.pxi), or a dict.

With 100,000 open traces what a look touches is in no cache of the processor.
"""

from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING

if TYPE_CHECKING or implementation("feeding") != COMPILED:
    OpenTraces = dict[bytes, OpenTrace]
else:
    from epsagon_fast.collector.assembling._feeding import OpenTraces

__all__ = ["OpenTraces"]
