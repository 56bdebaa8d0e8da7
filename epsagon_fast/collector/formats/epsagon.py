"""The JSON that epsagon-go's backend takes: one trace a request, the token in its envelope and in a header.

Everything is orjson's compact form, so that lengths can be added up without writing the whole.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import orjson

from epsagon_fast.collector.formats import FittedTrace, Post
from epsagon_fast.collector.formats.headers import MAX_REMEMBERED, headers_for
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.config import otlp_url
from epsagon_fast.protocol import WireConfig
from epsagon_fast.rows import NamedTuple, maker
from epsagon_fast.version import __version__

# Why a trace is rejected that went to an OTLP server without otlp+ in its URL.
OTLP_ENDPOINT = "otlp_endpoint"


_post = maker(Post)


class JsonEnvelope(NamedTuple):
    """A trace's JSON without its events and exceptions: what stands before, between and after them."""

    head: bytes
    middle: bytes
    tail: bytes

    @property
    def size_bytes(self) -> int:
        """The length of an empty trace."""
        return len(self.head) + len(self.middle) + len(self.tail)

    def body(self, trace: FittedTrace) -> bytes:
        """Return the whole body."""
        return self.around(trace.events, trace.exceptions)

    def around(self, events: Sequence[bytes], exceptions: Sequence[bytes]) -> bytes:
        """Return the body with these events and exceptions."""
        before, after = self.head, self.middle + b",".join(exceptions) + self.tail
        if not events:
            return before + after
        # Joined once: a body joined of joined parts would be copied twice.
        parts = [*events]
        parts[0] = before + parts[0]
        parts[-1] += after
        return b",".join(parts)


class Epsagon:
    """The format of epsagon-go's backend, and of ours."""

    name = "epsagon"
    content_type = "application/json"
    collect_s = 0.0
    transient = frozenset({408, 429, 500, 502, 503, 504})

    def envelope(self, config: WireConfig, platform: str) -> JsonEnvelope:
        """Return the envelope of a config's traces. Raises TypeError if a text is none or cannot be UTF-8."""
        return envelope(config["app_name"], config["token"], platform)

    def shared(self, waiting: Iterable[Parcel]) -> int:
        """Return 1: each trace has a request of its own."""
        return 1

    def post(self, parcels: Sequence[Parcel]) -> Post:
        """Return the request that carries one parcel."""
        (parcel,) = parcels
        headers = headers_for(parcel.destination, self.content_type)
        return _post((parcel.destination.url, headers, parcel.body, parcel.trace_id.hex()))

    def refusal(self, answer: bytes, url: str) -> str | None:
        """Return a word if an OTLP server answered.

        An OTLP server takes any JSON object with 200, and stores nothing. Some say so with an empty object.
        Other backends may answer that too, but not where OTLP is at home.
        """
        # As answer.is_page looks: `in` takes several times as long.
        if answer.find(b'"partialSuccess"') < 0:
            return OTLP_ENDPOINT if answer.strip() == b"{}" and _is_otlps_home(url) else None
        try:
            said = orjson.loads(answer)
        except ValueError:
            return None
        return OTLP_ENDPOINT if isinstance(said, dict) and "partialSuccess" in said else None

    def without_secret(self, body: bytes, destination: Destination) -> tuple[int | None, bytes]:
        """Return a body without its envelope's token, and where that stood; None: it has none."""
        # Inside a JSON string the quotes have backslashes, so the first match is the envelope's own member.
        before, found, after = body.partition(b'"token":' + orjson.dumps(destination.token))
        if not found:
            return None, body
        token_at = len(before) + len(b'"token":')
        return token_at, body[:token_at] + after

    def with_secret(self, body: bytes, secret_at: int, destination: Destination) -> bytes:
        """Return the body with its token."""
        return body[:secret_at] + orjson.dumps(destination.token) + body[secret_at:]


EPSAGON = Epsagon()


@lru_cache(MAX_REMEMBERED)
def _is_otlps_home(url: str) -> bool:
    return otlp_url(url) is not None


def envelope(app_name: str, token: str, platform: str) -> JsonEnvelope:
    """Return the envelope of a trace. Raises TypeError if a text is none or cannot be UTF-8."""
    names = {"app_name": app_name, "token": token, "version": __version__, "platform": platform}
    texts = {name: orjson.dumps(text).decode() for name, text in names.items()}
    return JsonEnvelope(
        head=f'{{"app_name":{texts["app_name"]},"token":{texts["token"]},"events":['.encode(),
        middle=b'],"exceptions":[',
        tail=f'],"version":{texts["version"]},"platform":{texts["platform"]}}}'.encode(),
    )
