"""What the outbox is asked, and what it reports."""

from dataclasses import dataclass, field
from typing import NamedTuple

from epsagon_fast.collector.parcel import Destination, Parcel


@dataclass
class Orders:
    """What an outbox is asked to do in one state directory."""

    puts: list[Parcel] = field(default_factory=list)
    takes: dict[Destination, int] = field(default_factory=dict)
    give_back: list[bytes] = field(default_factory=list)
    remove: list[bytes] = field(default_factory=list)


class Stored(NamedTuple):
    """These traces are committed."""

    trace_ids: list[bytes]


class Refused(NamedTuple):
    """These traces could not be stored, and are the caller's again."""

    trace_ids: list[bytes]


class Taken(NamedTuple):
    """What there was to send for a destination."""

    destination: Destination
    parcels: list[Parcel]


class Waiting(NamedTuple):
    """How many traces each destination has in a directory, those that are being sent among them."""

    state_dir: str
    directory: str
    counts: dict[Destination, int]


class Gone(NamedTuple):
    """These stored traces are no more."""

    trace_ids: list[bytes]


Report = Stored | Refused | Taken | Waiting | Gone
