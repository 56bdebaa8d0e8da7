"""What a backend's format decides: how traces are written for it, and how its answers are read.

A destination has one format (choice.py), and nothing else in the collector knows which. Assembling asks how much room
its envelope takes and has a body made of each trace; sending asks which traces may share a request, how that request
looks, and whether a friendly answer means that they arrived; the outbox keeps bodies without their secrets.

A new format is a module here that has what `Format` has, and a line in choice.py.
"""

from collections.abc import Iterable, Mapping, Sequence

from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.hints import Protocol
from epsagon_fast.protocol import WireConfig
from epsagon_fast.rows import NamedTuple


class FittedTrace(NamedTuple):
    """A closed trace, masked and within its limit: all that a body is made of.

    Labels, the error and the marks of trimming are in the runner already.
    """

    trace_id: bytes
    # JSON objects, the runner among them.
    events: Sequence[bytes]
    # Where the runner stands among the events; None: the trace has none.
    runner_place: int | None
    # JSON objects.
    exceptions: Sequence[bytes]


class Post(NamedTuple):
    """One HTTP request. Header values are written as latin-1."""

    url: str
    # Never changed. If a destination's requests have the same object, it is looked through and written once.
    headers: Mapping[str, str]
    body: bytes
    # Visible ASCII by which a server knows a request that it has seen; "": it has none. A header of the user's counts.
    idempotency_key: str = ""


class Envelope(Protocol):
    """The part of a body that all traces of one config share; made once for them."""

    @property
    def size_bytes(self) -> int:
        """How many bytes of a trace's limit it takes. A comma between events is counted with the events."""

    def body(self, trace: FittedTrace) -> bytes:
        """Return the body of a trace, as its parcel carries it."""


class Format(Protocol):
    """One way to write traces. Has no state: one object serves all threads."""

    @property
    def name(self) -> str:
        """The word for it in a URL's scheme and in the docs."""

    @property
    def content_type(self) -> str:
        """The Content-Type of its requests."""

    @property
    def collect_s(self) -> float:
        """How long a trace may wait for others that share its request, in seconds; 0: none shares one."""

    @property
    def transient(self) -> frozenset[int]:
        """The statuses after which the same request may succeed later. Every other one that is not 2xx is final."""

    def envelope(self, config: WireConfig, platform: str) -> Envelope:
        """Return what traces of a config have in common. `config`: as an OPEN brings it; raises TypeError for others.

        platform: the interpreter's name and version.
        """

    def shared(self, waiting: Iterable[Parcel]) -> int:
        """Return how many of these, from the first on, share one request; at least 1. All have one destination."""

    def post(self, parcels: Sequence[Parcel]) -> Post:
        """Return the request that carries these parcels, which `shared` let share one."""

    def refusal(self, answer: bytes, url: str) -> str | None:
        """Return why a backend that answered 2xx and this body did not take the traces; None: it did.

        One word, by which they are counted; or a word and the backend's own, as in "word: too old".
        """

    def without_secret(self, body: bytes, destination: Destination) -> tuple[int | None, bytes]:
        """Return a body without the destination's secret, and where that stood; None: it has none."""

    def with_secret(self, body: bytes, secret_at: int, destination: Destination) -> bytes:
        """Return what `without_secret` was given."""
