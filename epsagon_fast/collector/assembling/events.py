"""Takes usual records into their traces, and usual traces out of them: most are that.

- `take`: an event for an open trace, that has no flag and fits into what its trace may hold without anything giving
  way. Compiled it also takes an OPEN, a LABEL, a RUNNER and a CLOSE that say nothing unusual.
- `fetch` has the processor fetch the traces of many records.
- `unmasked` passes over records that masking leaves as they are, and `strays` over those that stand behind their OPEN.
- `whole` builds the body of a trace of which nothing is cut; only the compiled one does.

What they leave is done by the parts of the assembly that do all: Assembly.feed and masked, and body.build. So each of
them may leave whatever it likes.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence

from epsagon_fast.collector.assembling.accounts import Accounts
from epsagon_fast.collector.assembling.masks import Masks
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Final
from epsagon_fast.protocol import NO_TRACE, Kind, Record

if TYPE_CHECKING:
    from collections import Counter

__all__ = [
    "IMPLEMENTATION",
    "fetch",
    "pure_fetch",
    "pure_strays",
    "pure_take",
    "pure_unmasked",
    "pure_whole",
    "strays",
    "take",
    "unmasked",
    "whole",
]

# As plain integers: comparing with a member of Kind costs more than the rest of the decision.
_OPEN, _EVENT, _LABEL, _CLOSE = map(int, (Kind.OPEN, Kind.EVENT, Kind.LABEL, Kind.CLOSE))
IMPLEMENTATION: Final = implementation("feeding")


def pure_take(
    records: Sequence[Record],
    at: int,
    ring_id: bytes,
    traces: MutableMapping[bytes, OpenTrace],
    of_rings: MutableMapping[bytes, dict[bytes, OpenTrace]],
    closed: list[OpenTrace],
    is_new: Callable[[bytes], bool],
    accounts: Accounts,
    counters: "Counter[str]",
    answered: list[bytes],
) -> int:
    """Take in the usual records from `at` on, of open `traces`; return where another one stands, or the end.

    of_rings: the same traces by their rings. `closed` gets those that a CLOSE has closed, and `answered` the ids of
    those with a number. `is_new`: says of an id whether no trace has it and no record waits for one.
    """
    while 0 <= at < len(records):
        kind, flags, _, trace_id, payload = records[at]
        trace = traces.get(trace_id)
        if trace is None or kind != _EVENT or flags or not payload or not trace.stream.fits(payload):
            break
        trace.account.open_bytes += trace.stream.add_event(payload)
        at += 1
    return at


def pure_unmasked(records: Sequence[Record], at: int, masks: Masks) -> int:
    """Return where, from `at` on, a record stands that masking may change, or the end. Learns the masks of OPENs.

    One whose mask raises is such a record: the caller asks again, and knows then which it was.
    """
    while 0 <= at < len(records):
        kind, _, _, trace_id, payload = records[at]
        mask = masks.of(trace_id)
        try:
            if kind == _OPEN:
                if not masks.passes(trace_id, payload):
                    break
            # What is searched holds names as events do: a label is another form.
            elif mask is not None and kind != _CLOSE and (kind == _LABEL or mask.may_change(payload)):
                break
        except Exception:
            break
        at += 1
    return at


def pure_strays(records: Sequence[Record], traces: Mapping[bytes, OpenTrace]) -> set[bytes]:
    """Return the traces, beside the open ones, of which a record stands before their OPEN, or without one."""
    opened, found = {NO_TRACE}, set[bytes]()
    for record in records:
        if record.trace_id not in opened and record.trace_id not in traces:
            (opened if record.kind == _OPEN else found).add(record.trace_id)
    return found


def pure_fetch(records: Sequence[Record], traces: Mapping[bytes, OpenTrace]) -> None:
    """Have the processor fetch what `take` will touch of open traces, if they are too many to be in its caches.

    All at once, and not each when it is waited for. Python cannot say that.
    """


def pure_whole(trace: OpenTrace) -> tuple[bytes, int] | None:
    """Return the body of a closed trace of which nothing is cut, and its size without a limit; None: not known here.

    The size is that in our own form, whatever the body is written in. ValueError: an event is not JSON.
    """
    return None


if TYPE_CHECKING or IMPLEMENTATION != COMPILED:
    fetch, strays, take, unmasked, whole = pure_fetch, pure_strays, pure_take, pure_unmasked, pure_whole
else:
    from epsagon_fast.collector.assembling._feeding import fetch, strays, take, unmasked, whole
