"""All metrics, and where each comes from. docs/metrics.md has the same table.

Names follow Prometheus: counters end in `_total`, units are seconds and bytes. A counter here never goes back while its
folder exists, so no sample is the difference of two others, which are not written at the same moment.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from epsagon_fast.collector.formats.conventions import OVERFLOW
from epsagon_fast.collector.measuring.figures import COUNTER, GAUGE, HISTOGRAM, Metric, Sample, View
from epsagon_fast.collector.measuring.histogram import NS_PER_S
from epsagon_fast.collector.measuring.keys import DELIVERY, REQUEST
from epsagon_fast.collector.measuring.slots import (
    ERROR_AT,
    STORED_BYTES,
    STORED_SINCE,
    STORED_TRACES,
    SUCCESS_AT,
    reason_of,
)
from epsagon_fast.protocol import OUTCOMES, Outcome
from epsagon_fast.queue.overview import RingView

# Processes with series of their own: those that refused most, then those with the fullest rings.
MAX_PROCESSES = 100
_OUTCOMES = tuple(outcome.name.lower() for outcome in OUTCOMES if outcome not in (Outcome.PENDING, Outcome.DISABLED))
# Counters of the state page, by what they mean.
_LOST = ("late", "orphan", "malformed", "misplaced", "labels_full", "runner_full", "too_big", "cut")
_TROUBLES = (
    "full",
    "journal_unavailable",
    "outbox_unavailable",
    "poison",
    "corrupt_rings",
    "corrupt_segments",
    "unnamed",
)


def _one(value: float | None) -> Iterator[Sample]:
    if value is not None:
        yield (), value


def _up(view: View) -> Iterator[Sample]:
    return _one(1 if view.seen and view.seen.pid else 0)


def _outcomes(view: View) -> Iterator[Sample]:
    for outcome in _OUTCOMES:
        yield (outcome,), view.counters.get(outcome, 0)


def _reasons(view: View) -> Iterator[Sample]:
    for name, count in view.counters.items():
        outcome, _, reason = name.partition("_")
        if outcome in _OUTCOMES and reason:
            yield (outcome, reason), count


def _processes(view: View) -> dict[str, list[RingView]]:
    """Return rings by their processes' ids, not too many."""
    rings = view.seen.rings if view.seen else []
    first = sorted(rings, key=lambda ring: (sum(ring.refused.values()), ring.unread_bytes), reverse=True)
    found: dict[str, list[RingView]] = {}
    for ring in first:
        if str(ring.pid) in found or len(found) < MAX_PROCESSES:
            found.setdefault(str(ring.pid), []).append(ring)
    return found


def _refused_by_process(view: View) -> Iterator[Sample]:
    for pid, rings in _processes(view).items():
        refused = sum((Counter(ring.refused) for ring in rings), Counter[str]())
        for reason, count in refused.items():
            yield (pid, reason), count


def _unread_by_process(view: View) -> Iterator[Sample]:
    for pid, rings in _processes(view).items():
        yield (pid,), sum(ring.unread_bytes for ring in rings)


def _held_by_process(view: View) -> Iterator[Sample]:
    for pid, rings in _processes(view).items():
        yield (pid,), sum(ring.held_bytes for ring in rings)


def _unread(view: View) -> Iterator[Sample]:
    return _one(sum(ring.unread_bytes for ring in view.seen.rings) if view.seen else None)


def _capacity(view: View) -> Iterator[Sample]:
    return _one(sum(ring.capacity_bytes for ring in view.seen.rings) if view.seen else None)


def _fill(view: View) -> Iterator[Sample]:
    if view.seen:
        yield (), max((ring.unread_bytes / ring.capacity_bytes for ring in view.seen.rings), default=0.0)


def _requests(view: View) -> Iterator[Sample]:
    yield from view.histograms(REQUEST, 2).items()


def _request_errors(view: View) -> Iterator[Sample]:
    for labels, histogram in view.histograms(REQUEST, 2).items():
        yield labels, histogram.failures


def _deliveries(view: View) -> Iterator[Sample]:
    yield from view.histograms(DELIVERY, 1).items()


def _delivery_errors(view: View) -> Iterator[Sample]:
    for labels, histogram in view.histograms(DELIVERY, 1).items():
        yield labels, histogram.failures


def _moments(slot: int) -> Callable[[View], Iterator[Sample]]:
    def samples(view: View) -> Iterator[Sample]:
        for (destination,), series in view.of_kind(DELIVERY):
            if series.slots[slot]:
                yield (destination,), series.slots[slot] / NS_PER_S

    return samples


def _last_errors(view: View) -> Iterator[Sample]:
    for (destination,), series in view.of_kind(DELIVERY):
        if series.slots[ERROR_AT]:
            yield (destination, reason_of(series)), series.slots[ERROR_AT] / NS_PER_S


def _stored(slot: int) -> Callable[[View], Iterator[Sample]]:
    def samples(view: View) -> Iterator[Sample]:
        for (destination,), series in view.of_kind(DELIVERY):
            if destination != OVERFLOW or series.slots[slot]:
                yield (destination,), series.slots[slot]

    return samples


def _oldest(view: View) -> Iterator[Sample]:
    for (destination,), series in view.of_kind(DELIVERY):
        if series.slots[STORED_TRACES]:
            yield (destination,), max(0.0, view.now - series.slots[STORED_SINCE] / NS_PER_S)


def _cpu(view: View) -> Iterator[Sample]:
    return _one(view.counters.get("cpu_ms", 0) / 1000)


def _counter(name: str, counted: str, text: str) -> Metric:
    return Metric(name, COUNTER, text, (), lambda view: _one(view.counters.get(counted, 0)))


def _by_name(name: str, label: str, counted: tuple[str, ...], text: str) -> Metric:
    def samples(view: View) -> Iterator[Sample]:
        for each in counted:
            yield (each,), view.counters.get(each, 0)

    return Metric(name, COUNTER, text, (label,), samples)


def _by_rest(name: str, prefix: str, text: str) -> Metric:
    def samples(view: View) -> Iterator[Sample]:
        for each, count in view.counters.items():
            if each.startswith(prefix):
                yield (each.removeprefix(prefix),), count

    return Metric(name, COUNTER, text, ("reason",), samples)


def _gauge(name: str, gauge: str, text: str) -> Metric:
    return Metric(name, GAUGE, text, (), lambda view: _one(view.gauges.get(gauge)))


CATALOGUE = (
    Metric("epsagon_fast_up", GAUGE, "1 if a collector serves the folder.", (), _up),
    Metric(
        "epsagon_fast_request_duration_seconds",
        HISTOGRAM,
        "Closed traces by application and name, and how long they took, before sampling.",
        ("application", "name"),
        _requests,
    ),
    Metric(
        "epsagon_fast_request_errors_total",
        COUNTER,
        "Those of them that failed.",
        ("application", "name"),
        _request_errors,
    ),
    Metric(
        "epsagon_fast_traces_total",
        COUNTER,
        "Outcomes of closed traces; one that was stored has another outcome later.",
        ("outcome",),
        _outcomes,
    ),
    Metric(
        "epsagon_fast_traces_by_reason_total",
        COUNTER,
        "Outcomes that have a reason: an HTTP status, or a word.",
        ("outcome", "reason"),
        _reasons,
    ),
    _by_rest("epsagon_fast_traces_kept_total", "kept_", "Traces that sampling kept, by the rule that did."),
    _counter("epsagon_fast_traces_left_out_total", "left_out_at_head", "Traces that the head left out, unrecorded."),
    _counter("epsagon_fast_traces_closed_total", "closed", "Traces of which a body was made."),
    _counter("epsagon_fast_traces_trimmed_total", "trimmed", "Traces that were over their limit."),
    _counter("epsagon_fast_untrimmed_bytes_total", "bytes_before_trimming", "Bodies' bytes, had nothing been trimmed."),
    _counter("epsagon_fast_body_bytes_total", "bytes_after_trimming", "Bodies' bytes."),
    _counter("epsagon_fast_records_total", "records", "Records that were read of the queues."),
    _by_name("epsagon_fast_records_lost_total", "reason", _LOST, "Records that no trace took, or not wholly."),
    _by_rest("epsagon_fast_refused_total", "refused_", "Records that processes refused to queue."),
    Metric(
        "epsagon_fast_process_refused_total",
        COUNTER,
        f"Records that each living process refused; at most {MAX_PROCESSES} processes.",
        ("pid", "reason"),
        _refused_by_process,
    ),
    Metric(
        "epsagon_fast_process_unread_bytes",
        GAUGE,
        f"Bytes in each process's queue; at most {MAX_PROCESSES} processes.",
        ("pid",),
        _unread_by_process,
    ),
    Metric(
        "epsagon_fast_process_held_bytes",
        GAUGE,
        f"Bytes of each process's traces in the collector; at most {MAX_PROCESSES} processes.",
        ("pid",),
        _held_by_process,
    ),
    Metric("epsagon_fast_queue_unread_bytes", GAUGE, "Bytes in the queues of all processes.", (), _unread),
    Metric("epsagon_fast_queue_capacity_bytes", GAUGE, "Size of the queues of all processes.", (), _capacity),
    Metric("epsagon_fast_queue_fill_ratio", GAUGE, "How full the fullest queue is, from 0 to 1.", (), _fill),
    _gauge("epsagon_fast_queues", "rings", "Queues that the collector reads: one for each process."),
    _gauge("epsagon_fast_open_traces", "open_traces", "Traces that still take records."),
    _gauge("epsagon_fast_pending_traces", "pending", "Closed traces without an outcome yet."),
    _gauge("epsagon_fast_stored_traces", "stored", "Traces in the outboxes that this collector uses."),
    _gauge("epsagon_fast_held_bytes", "held_bytes", "Memory of all traces in the collector, nearly."),
    _gauge("epsagon_fast_journal_bytes", "journal_bytes", "Size of the journal."),
    _gauge("epsagon_fast_stopped_queues", "full", "Queues that are not read for now, because too much is held."),
    Metric(
        "epsagon_fast_delivery_duration_seconds",
        HISTOGRAM,
        "Requests to each destination, and how long each took until its answer or failure.",
        ("destination",),
        _deliveries,
    ),
    Metric(
        "epsagon_fast_delivery_errors_total", COUNTER, "Those of them that failed.", ("destination",), _delivery_errors
    ),
    Metric(
        "epsagon_fast_delivery_last_success_timestamp_seconds",
        GAUGE,
        "When a destination last took something.",
        ("destination",),
        _moments(SUCCESS_AT),
    ),
    Metric(
        "epsagon_fast_delivery_last_error_timestamp_seconds",
        GAUGE,
        "When and why a destination last took nothing.",
        ("destination", "reason"),
        _last_errors,
    ),
    Metric(
        "epsagon_fast_outbox_traces",
        GAUGE,
        "Traces that wait on disk for a destination.",
        ("destination",),
        _stored(STORED_TRACES),
    ),
    Metric(
        "epsagon_fast_outbox_bytes",
        GAUGE,
        "Bytes that wait on disk for a destination.",
        ("destination",),
        _stored(STORED_BYTES),
    ),
    Metric(
        "epsagon_fast_outbox_oldest_age_seconds",
        GAUGE,
        "Since when the oldest of them waits.",
        ("destination",),
        _oldest,
    ),
    _by_name("epsagon_fast_troubles_total", "kind", _TROUBLES, "Things that a person should look into."),
    _counter("epsagon_fast_adopted_folders_total", "adopted_folders", "Folders without a collector that were emptied."),
    Metric("epsagon_fast_collector_cpu_seconds_total", COUNTER, "Processor time of all collectors.", (), _cpu),
    _gauge("epsagon_fast_collector_memory_bytes", "resident_bytes", "Memory of the collector."),
    Metric(
        "epsagon_fast_collectors_total",
        COUNTER,
        "Collectors that ever served the folder.",
        (),
        lambda view: _one(view.seen.incarnation if view.seen else None),
    ),
    Metric(
        "epsagon_fast_collector_uptime_seconds",
        GAUGE,
        "Age of the collector.",
        (),
        lambda view: _one(view.seen.up_s if view.seen else None),
    ),
    Metric(
        "epsagon_fast_collector_heartbeat_age_seconds",
        GAUGE,
        "Time since the collector's last sign of life.",
        (),
        lambda view: _one(view.seen.heartbeat_age_s if view.seen else None),
    ),
)
