from collections.abc import Sequence

from epsagon_fast.trimming._types import Trimmed

def trim(events: Sequence[bytes], limit_bytes: int, *, envelope_bytes: int = 0, reserve_bytes: int = 0) -> Trimmed: ...
