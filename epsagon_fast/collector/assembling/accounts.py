"""How much memory of the collector each process uses, so that one that uses much can be stopped while others go on.

A process is known by its ring. It answers for the traces that it opened until they are settled, with all
that others add to them.
"""

from epsagon_fast.collector.bounds import Held, made

# A trace's own objects, without events and texts. They take no room in the journal.
TRACE_BYTES = 1280
NOTHING = Held(0, 0)


class Account:
    """How much memory one ring's process uses here, in bytes."""

    __slots__ = ("body_bytes", "open_bytes", "open_traces")

    def __init__(self) -> None:
        # Its open traces, and its records of traces not yet opened. Feeding an open trace adds to it.
        self.open_bytes = 0
        # Its traces that are finished and not settled.
        self.body_bytes = 0
        self.open_traces = 0

    @property
    def held(self) -> Held:
        """All of it, and how much the journal needs for that."""
        held_bytes = self.open_bytes + self.body_bytes
        return made((held_bytes, held_bytes - TRACE_BYTES * self.open_traces))


class Accounts:
    """The accounts of all rings, by ring id.

    A trace that is open or not settled keeps its account, and what it takes is added there. `close_empty` closes those
    with nothing in them.
    """

    def __init__(self) -> None:
        self._accounts: dict[bytes, Account] = {}

    @property
    def open_bytes(self) -> int:
        """The sum of all."""
        return sum([account.open_bytes for account in self._accounts.values()])

    def held_by(self, ring_id: bytes) -> Held:
        """Return all that a ring's process has here."""
        account = self._accounts.get(ring_id)
        return account.held if account else NOTHING

    def holds_most(self) -> bytes | None:
        """Return the ring of which the process has most in open traces; None: no process has anything here."""
        self.close_empty()
        return max(self._accounts, key=lambda ring_id: self._accounts[ring_id].open_bytes, default=None)

    def of(self, ring_id: bytes) -> Account:
        """Return the account of a ring's process."""
        account = self._accounts.get(ring_id)
        if account is None:
            account = self._accounts[ring_id] = Account()
        return account

    def charge(self, ring_id: bytes, open_bytes: int, open_traces: int = 0) -> Account:
        """Add to what a ring's process has here in open traces and held records; negative: take away."""
        account = self.of(ring_id)
        account.open_bytes += open_bytes
        account.open_traces += open_traces
        return account

    def close_empty(self) -> None:
        """Close the accounts with nothing in them. To be called while each finished trace has its body counted."""
        empty = [
            ring_id for ring_id, account in self._accounts.items() if not account.open_bytes and not account.body_bytes
        ]
        for ring_id in empty:
            del self._accounts[ring_id]
