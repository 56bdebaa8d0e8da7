"""Which format a destination takes. The only place that knows all formats."""

from functools import lru_cache

from epsagon_fast.collector.formats import Format
from epsagon_fast.collector.formats.epsagon import EPSAGON
from epsagon_fast.collector.formats.otlp import OTLP, OTLP_PROTOBUF
from epsagon_fast.collector.parcel import Destination

# By what stands before the `+` in the scheme of the destination's URL, as in otlp+http; "" without a `+`.
FORMATS: dict[str, Format] = {"": EPSAGON, OTLP.name: OTLP, OTLP_PROTOBUF.name: OTLP_PROTOBUF}

# URLs whose format's name is remembered, as it is asked for several times a trace.
MAX_REMEMBERED = 64


def format_for(destination: Destination) -> Format:
    """Return the format that a destination takes."""
    # An unknown name: sending will refuse the scheme of the URL, which the epsagon format leaves as it is.
    return FORMATS.get(_name(destination.url), EPSAGON)


@lru_cache(MAX_REMEMBERED)
def _name(url: str) -> str:
    scheme, _, _ = url.partition("://")
    name, plus, _ = scheme.rpartition("+")
    return name.lower() if plus else ""
