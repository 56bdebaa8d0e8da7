from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from epsagon_fast.collector.assembling.accounts import Accounts
from epsagon_fast.collector.assembling.masks import Masks
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.assembling.terms import Terms
from epsagon_fast.protocol import Record

def take(
    records: Sequence[Record],
    at: int,
    ring_id: bytes,
    traces: dict[bytes, OpenTrace],
    of_rings: dict[bytes, dict[bytes, OpenTrace]],
    closed: list[OpenTrace],
    is_new: Callable[[bytes], bool],
    accounts: Accounts,
    counters: Counter[str],
    answered: list[bytes],
) -> int: ...
def unmasked(records: Sequence[Record], at: int, masks: Masks) -> int: ...
def strays(records: Sequence[Record], traces: dict[bytes, OpenTrace]) -> set[bytes]: ...
def fetch(records: Sequence[Record], traces: dict[bytes, OpenTrace]) -> None: ...
def tally(
    traces: list[OpenTrace],
    at: int,
    terms: Terms | None,
    numbers: dict[str, int],
    counted: set[bytes],
    id_bytes: int,
    bounds_ns: tuple[int, ...],
    sums: Mapping[tuple[int, int], Any],
) -> int: ...
def whole(trace: OpenTrace) -> tuple[bytes, int] | None: ...
