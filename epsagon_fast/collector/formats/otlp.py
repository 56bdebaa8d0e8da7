"""OTLP/HTTP, which the OpenTelemetry Collector and most backends take: several traces in a request.

A trace's body is its part of a request, so parts of several traces are joined and not parsed again.
"""

import importlib.util
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from types import ModuleType

from epsagon_fast.collector.formats import FittedTrace, Post, otlp_json, otlp_protobuf
from epsagon_fast.collector.formats.conventions import Value, attribute
from epsagon_fast.collector.formats.epsagon import EPSAGON
from epsagon_fast.collector.formats.headers import headers_for, may_compress
from epsagon_fast.collector.formats.plain import part, span_count
from epsagon_fast.collector.formats.spans import SDK
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.foreign import url_parts
from epsagon_fast.protocol import OTLP_TRACES_PATH, WireConfig
from epsagon_fast.rows import NamedTuple
from epsagon_fast.version import __version__

# The bounds of a request before it is compressed. One trace alone may be over them.
MOST_BYTES = 4 * 1024 * 1024
MOST_SPANS = 2000
# A smaller body costs more to compress than to send.
GZIP_FROM_BYTES = 1024
# Higher levels take several times as long for a tenth less.
GZIP_LEVEL = 1
# The most memory, in gzip's frame, as the gzip module has it.
GZIP_FORM = zlib.MAX_WBITS | 16
# The longest that a trace waits for others.
COLLECT_S = 0.2
# OTLP's own list: what another status refused is refused for good.
TRANSIENT = frozenset({429, 502, 503, 504})
PARTIAL = "partial_success"


class OtlpEnvelope(NamedTuple):
    """What spans of one config share, and the room that the same trace would lose in our own form."""

    encoding: ModuleType
    resource: bytes
    size_bytes: int

    def body(self, trace: FittedTrace) -> bytes:
        """Return a trace's part of a request. Raises ValueError if an event is not JSON."""
        return part(trace, self.resource, self.encoding)


class Otlp:
    """OTLP/HTTP in one encoding. A body itself says in which, because the outbox may hold both for a destination."""

    collect_s = COLLECT_S
    transient = TRANSIENT

    def __init__(self, name: str, encoding: ModuleType) -> None:
        self.name = name
        self._encoding = encoding

    @property
    def content_type(self) -> str:
        """The Content-Type of new requests."""
        return str(self._encoding.CONTENT_TYPE)

    def envelope(self, config: WireConfig, platform: str) -> OtlpEnvelope:
        """Return what a config's traces share. Raises TypeError if a text is none or cannot be UTF-8."""
        # A trace's limit holds for our own form, so that a trace is trimmed alike whichever backend it goes to.
        own = EPSAGON.envelope(config, platform)
        return OtlpEnvelope(self._encoding, self._encoding.resource(resource_of(config)), own.size_bytes)

    def shared(self, waiting: Iterable[Parcel]) -> int:
        """Return how many of these are within a request's bounds and in one encoding, at least 1."""
        bodies = (parcel.body for parcel in waiting)
        taken = [next(bodies)]
        encoding = encoding_of(taken[0])
        size, spans, counted = len(taken[0]), 0, 0
        for body in takewhile(lambda body: encoding_of(body) is encoding, bodies):
            size += len(body) + 1
            if size > MOST_BYTES:
                break
            taken.append(body)
            # Before, there cannot be too many, and to count them would take longer than all else here.
            if size > MOST_SPANS * encoding.LEAST_SPAN_BYTES:
                spans += sum([span_count(each, encoding) for each in taken[counted:]])
                counted = len(taken)
                if spans > MOST_SPANS:
                    return max(1, len(taken) - 1)
        return len(taken)

    def post(self, parcels: Sequence[Parcel]) -> Post:
        """Return the request that carries these parcels."""
        destination, encoding = parcels[0].destination, encoding_of(parcels[0].body)
        body = encoding.request([parcel.body for parcel in parcels])
        return posted(destination, address(destination.url), encoding.CONTENT_TYPE, body)

    def refusal(self, answer: bytes, url: str) -> str | None:
        """Return a word if the backend says that it took only a part: OTLP forbids to send that again."""
        # JSON may begin with blanks. In protobuf one of them is a tag.
        spans, message = encoding_of(answer.lstrip()).partial_success(answer)
        return f"{PARTIAL}: {message}" if spans > 0 else None

    def without_secret(self, body: bytes, destination: Destination) -> tuple[int | None, bytes]:
        """Return the body, which holds no secret."""
        return None, body

    def with_secret(self, body: bytes, secret_at: int, destination: Destination) -> bytes:
        """Return the body as it is."""
        return body


def posted(destination: Destination, url: str, content_type: str, body: bytes) -> Post:
    """Return a request with this body, which is compressed if that is worth it."""
    if len(body) < GZIP_FROM_BYTES or not may_compress(destination):
        return Post(url, headers_for(destination, content_type), body)
    return Post(url, headers_for(destination, content_type, "gzip"), zlib.compress(body, GZIP_LEVEL, GZIP_FORM))


def encoding_of(body: bytes) -> ModuleType:
    """Return the encoding that a part or an answer is in."""
    return otlp_json if body.startswith(b"{") else otlp_protobuf


def _protobuf() -> ModuleType:
    # Every OTLP backend that knows protobuf by this name should know JSON. Better that than no trace.
    try:
        return otlp_protobuf if importlib.util.find_spec("opentelemetry.proto") else otlp_json
    except ImportError:
        return otlp_json


OTLP = Otlp("otlp", otlp_json)
OTLP_PROTOBUF = Otlp("otlp-protobuf", _protobuf())


def address(url: str) -> str:
    """Return the URL to POST to: without the format's name, and with OTLP's path where it has none."""
    plain = url.partition("+")[2]
    parts = url_parts(plain)
    return plain if parts.path else parts._replace(path=OTLP_TRACES_PATH).geturl()


def resource_of(config: WireConfig) -> Mapping[str, Value]:
    """Return the attributes of the process that a config is of, as OpenTelemetry calls them."""
    said = config.get("resource_attributes", {})
    own = {"service.name": config["app_name"]} if config["app_name"] else {}
    return {
        "service.name": "unknown_service:python",
        **{key: attribute(value) for key, value in said.items()},
        **own,
        "telemetry.sdk.name": SDK,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }
