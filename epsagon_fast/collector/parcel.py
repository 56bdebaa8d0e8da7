"""The things that pass between the rooms: a finished trace as a parcel with its destination, and its settlement.

Assembling makes a parcel's body, sending carries it and answers with a settlement; so neither needs the other. All of
it is safe to log: no secret shows in a repr.
"""

from epsagon_fast.foreign import origin
from epsagon_fast.protocol import Outcome, WireConfig
from epsagon_fast.rows import NamedTuple

# Memory of a parcel without its body.
PARCEL_BYTES = 1024


class TlsFiles(NamedTuple):
    """The files of a TLS connection, in PEM: what it trusts, and what it shows a server that asks who it is.

    None: what the system trusts; nothing to show; a key that stands in the certificate's file.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


class Destination(NamedTuple):
    """A backend as one worker's config names it. Equal fields mean the same destination."""

    url: str
    token: str
    # Bounds a whole request: connecting, sending, and reading the answer.
    send_timeout_s: float
    proxy_url: str | None = None
    ca_file: str | None = None
    # The outbox's directory for its traces; "": the config names none.
    state_dir: str = ""
    # A JSON object of further HTTP headers, as secret as the token; "": none.
    headers: str = ""
    client_certificate: str | None = None
    client_key: str | None = None

    @property
    def tls_files(self) -> TlsFiles:
        """Return the files that a TLS connection to it needs."""
        return TlsFiles(self.ca_file, self.client_certificate, self.client_key)

    @property
    def origin(self) -> str:
        """Return scheme, host and port: the part of the URL that cannot hold a secret."""
        return origin(self.url)

    # A user may hide credentials in the URL's user, path or query, and in the proxy's user.
    def __repr__(self) -> str:
        return f"Destination({self.origin}{', through a proxy' if self.proxy_url else ''})"


class Parcel:
    """A finished trace: the body is what is sent, byte for byte. Not to be changed.

    Its parts are read many times on its way, in slots faster than in a tuple.
    """

    __slots__ = ("body", "destination", "trace_id")

    def __init__(self, trace_id: bytes, destination: Destination, body: bytes) -> None:
        self.trace_id = trace_id
        self.destination = destination
        self.body = body

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parcel):
            return NotImplemented
        mine, theirs = (self.trace_id, self.destination, self.body), (other.trace_id, other.destination, other.body)
        return self is other or mine == theirs

    def __hash__(self) -> int:
        return hash((self.trace_id, self.destination, self.body))

    # The body holds the token.
    def __repr__(self) -> str:
        return f"Parcel({self.trace_id.hex()}, {self.destination!r}, {len(self.body)} bytes)"


class Settlement(NamedTuple):
    """A trace's outcome. `again`: it was STORED before, maybe by another collector, and that is over."""

    trace_id: bytes
    outcome: Outcome
    again: bool


def parcel_bytes(parcel: Parcel) -> int:
    """Return the memory that a finished trace takes, nearly."""
    return len(parcel.body) + PARCEL_BYTES


def from_config(config: WireConfig) -> Destination:
    """Return the destination that the wire form of a Config names (the `config` of an OPEN record)."""
    return Destination(
        url=config["collector_url"],
        token=config["token"],
        send_timeout_s=float(config["send_timeout_s"]),
        proxy_url=config.get("proxy_url") or None,
        ca_file=config.get("ca_file") or None,
        state_dir=config.get("state_dir") or "",
        headers=config.get("headers") or "",
        client_certificate=config.get("client_certificate") or None,
        client_key=config.get("client_key") or None,
    )
