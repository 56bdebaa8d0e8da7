from collections.abc import Mapping

from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.masking import Mask
from epsagon_fast.protocol import Record

def take_events(records: list[Record], at: int, traces: Mapping[bytes, OpenTrace]) -> int: ...
def unmasked(records: list[Record], at: int, masks: Mapping[bytes, Mask]) -> int: ...
