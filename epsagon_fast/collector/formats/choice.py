"""Which format a destination takes. The only place that knows all formats."""

from functools import lru_cache

from epsagon_fast.collector.formats import Format
from epsagon_fast.collector.formats.epsagon import EPSAGON
from epsagon_fast.collector.parcel import Destination

# By what stands before the `+` in the scheme of the destination's URL, as in otlp+http; "" without a `+`.
FORMATS: dict[str, Format] = {"": EPSAGON}

# URLs whose format's name is remembered, as it is asked for several times a trace.
MAX_REMEMBERED = 64


def format_for(destination: Destination) -> Format:
    """Return the format that a destination takes."""
    name = _name(destination.url)
    return FORMATS.get(name) or _imported(name)


def _imported(name: str) -> Format:
    # Not imported with this module, because few destinations take them. It is done with the first of these, or beside
    # the loop (spared.py).
    from epsagon_fast.collector.formats.otlp import OTLP, OTLP_PROTOBUF

    FORMATS.update({OTLP.name: OTLP, OTLP_PROTOBUF.name: OTLP_PROTOBUF})
    # An unknown name: sending will refuse the scheme of the URL, which the epsagon format leaves as it is.
    return FORMATS.get(name, EPSAGON)


@lru_cache(MAX_REMEMBERED)
def _name(url: str) -> str:
    scheme, _, _ = url.partition("://")
    name, plus, _ = scheme.rpartition("+")
    return name.lower() if plus else ""
