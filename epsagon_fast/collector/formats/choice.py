"""Which format a destination takes. The only place that knows all formats."""

from epsagon_fast.collector.formats import Format
from epsagon_fast.collector.formats.epsagon import EPSAGON
from epsagon_fast.collector.parcel import Destination

# By the scheme of the destination's URL, which says the format before a `+`: otlp+http. Without one it is epsagon's.
FORMATS: dict[str, Format] = {"": EPSAGON}


def format_for(destination: Destination) -> Format:
    """Return the format that a destination takes."""
    scheme, _, _ = destination.url.partition("://")
    name, plus, _ = scheme.rpartition("+")
    # What has no format is epsagon's, and sending then finds that its scheme cannot be used.
    return FORMATS.get(name.lower() if plus else "", EPSAGON)
