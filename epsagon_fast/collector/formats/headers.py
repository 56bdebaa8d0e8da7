"""The headers of a request, which every format sends: who asks, and what the user has chosen."""

from collections.abc import Mapping
from functools import lru_cache

import orjson

from epsagon_fast.collector.parcel import Destination
from epsagon_fast.version import __version__

# No value for a server, but the word of a config for a body that is not to be compressed.
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
    chosen.pop("Content-Encoding", None)
    given = {name.lower() for name in chosen}
    headers = {name: value for name, value in ours.items() if name.lower() not in given} | chosen
    return headers | {"Content-Encoding": encoding} if encoding else headers


def may_compress(destination: Destination) -> bool:
    """Say whether the user lets bodies be compressed."""
    return _chosen(destination).get("Content-Encoding") != _UNCOMPRESSED


def _chosen(destination: Destination) -> dict[str, str]:
    chosen: dict[str, str] = orjson.loads(destination.headers or b"{}")
    return chosen
