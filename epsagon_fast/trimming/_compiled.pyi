from collections.abc import Sequence

from epsagon_fast.trimming._types import Shortened, Trimmed

def trim(events: Sequence[bytes], limit_bytes: int, *, envelope_bytes: int = 0, reserve_bytes: int = 0) -> Trimmed: ...
def shorten(
    events: Sequence[bytes], limit_bytes: int, *, envelope_bytes: int = 0, reserve_bytes: int = 0
) -> Shortened: ...
