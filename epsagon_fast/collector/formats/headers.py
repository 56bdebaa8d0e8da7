"""The headers of a request, which every format sends: who asks, and what the user has chosen."""

from collections.abc import Mapping
from functools import lru_cache

import orjson

from epsagon_fast.collector.parcel import Destination
from epsagon_fast.config import stays_here
from epsagon_fast.version import __version__

# Not for a server: a config says by it how bodies are compressed.
_ENCODING = "Content-Encoding"
_UNCOMPRESSED = "identity"


# Destinations whose headers are remembered.
MAX_REMEMBERED = 64


@lru_cache(MAX_REMEMBERED)
def headers_for(destination: Destination, content_type: str, encoding: str = "") -> Mapping[str, str]:
    """Return what all requests to a destination with such bodies say: the same object for all of them.

    A header that the user has chosen takes the place of ours, whatever its case.
    """
    ours = {"Content-Type": content_type, "User-Agent": f"epsagon-fast/{__version__}"}
    if destination.token:
        # http.client writes headers as latin-1: this way UTF-8 comes out, as epsagon-go sends it.
        ours["Authorization"] = "Bearer " + destination.token.encode("utf-8", "replace").decode("latin-1")
    chosen = _chosen(destination)
    chosen.pop(_ENCODING, None)
    given = {name.lower() for name in chosen}
    headers = {name: value for name, value in ours.items() if name.lower() not in given} | chosen
    return headers | {_ENCODING: encoding} if encoding else headers


def may_compress(destination: Destination) -> bool:
    """Say whether bodies are compressed: as the user says, otherwise if they leave this machine.

    To pack and unpack them takes a machine more than to copy them.
    """
    said = _chosen(destination).get(_ENCODING)
    return said != _UNCOMPRESSED if said else not stays_here(destination.url)


def _chosen(destination: Destination) -> dict[str, str]:
    chosen: dict[str, str] = orjson.loads(destination.headers or b"{}")
    return chosen
