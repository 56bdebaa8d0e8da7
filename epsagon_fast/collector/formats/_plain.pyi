from epsagon_fast.collector.formats import FittedTrace
from epsagon_fast.collector.formats.plain import Writing

def written(trace: FittedTrace, resource: bytes, writing: Writing) -> bytes | None: ...
