"""The outbox's orders and reports."""

from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.rows import NamedTuple


class Orders:
    """Orders to an outbox for one state directory."""

    def __init__(self) -> None:
        self.puts: list[Parcel] = []
        self.takes: dict[Destination, int] = {}
        self.give_back: list[bytes] = []
        self.remove: list[bytes] = []


class Stored(NamedTuple):
    """These traces are committed."""

    trace_ids: list[bytes]


class Refused(NamedTuple):
    """These traces could not be stored, and belong to the caller again."""

    trace_ids: list[bytes]


class Taken(NamedTuple):
    """Traces of a destination that were leased to be sent; maybe none."""

    destination: Destination
    parcels: list[Parcel]


class Waiting(NamedTuple):
    """How many traces each destination has in a directory, including those that are being sent."""

    state_dir: str
    directory: str
    counts: dict[Destination, int]


class Unknown(NamedTuple):
    """How many traces a directory has cannot be told now: its file fails."""

    state_dir: str


class Amount(NamedTuple):
    """How much waits for a destination."""

    traces: int
    size_bytes: int
    # When the oldest of them was stored, in unix seconds.
    since: float


class Amounts(NamedTuple):
    """How much waits in a directory. It comes with each Waiting, for those who measure."""

    directory: str
    amounts: dict[Destination, Amount]


class Gone(NamedTuple):
    """These stored traces were dropped to make room."""

    trace_ids: list[bytes]


class Delivered(NamedTuple):
    """These stored traces, which a predecessor had taken, arrived before it was killed."""

    trace_ids: list[bytes]


Report = Stored | Refused | Taken | Waiting | Unknown | Amounts | Gone | Delivered
