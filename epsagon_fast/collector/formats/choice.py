"""Which format a destination takes. The only place that knows all formats."""

from epsagon_fast.collector.formats import Format
from epsagon_fast.collector.formats.epsagon import EPSAGON
from epsagon_fast.collector.formats.otlp import OTLP, OTLP_PROTOBUF
from epsagon_fast.collector.parcel import Destination

# By what stands before the `+` in the scheme of the destination's URL, as in otlp+http; "" without a `+`.
FORMATS: dict[str, Format] = {"": EPSAGON, OTLP.name: OTLP, OTLP_PROTOBUF.name: OTLP_PROTOBUF}


def format_for(destination: Destination) -> Format:
    """Return the format that a destination takes."""
    scheme, _, _ = destination.url.partition("://")
    name, plus, _ = scheme.rpartition("+")
    # An unknown name: sending will refuse the scheme of the URL, which the epsagon format leaves as it is.
    return FORMATS.get(name.lower() if plus else "", EPSAGON)
