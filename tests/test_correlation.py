import copy
import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from fakes import FakeQueue
from structlog.testing import LogCapture

import epsagon_fast as epsagon
from epsagon_fast.integrations import logging as integration
from epsagon_fast.integrations.structlog import add_ids
from epsagon_fast.producer import current
from epsagon_fast.producer.context import continue_context
from epsagon_fast.propagation import TraceContext

CALLER = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


@pytest.fixture
def instrumented() -> Iterator[None]:
    before = logging.Logger.makeRecord
    integration.instrument()
    integration.instrument()
    yield
    integration.uninstrument()
    assert logging.Logger.makeRecord is before
    assert logging.getLogRecordFactory() is logging.LogRecord


def formatted(record: logging.LogRecord) -> str:
    return logging.Formatter("%(trace_id)s %(span_id)s %(http_trace_id)s").format(record)


# current_ids


def test_ids_are_those_of_the_current_trace(queue: FakeQueue) -> None:
    assert epsagon.current_ids() is None
    with epsagon.trace("a") as tracer:
        ids = epsagon.current_ids()
        assert ids == (tracer.trace_id, tracer.trace_id[:16], tracer.trace_id)
    assert epsagon.current_ids() is None
    assert queue.kinds == ["OPEN", "CLOSE"]


def test_span_is_the_innermost_open_event(queue: FakeQueue) -> None:
    with epsagon.trace("a"), epsagon.event("outer") as outer:
        with epsagon.event("inner") as inner:
            inside = epsagon.current_ids()
        after = epsagon.current_ids()
    assert inside is not None and after is not None
    assert (inside.span_id, after.span_id) == (inner.id, outer.id)
    assert inside._replace(span_id="") == after._replace(span_id="")


def test_what_a_request_causes_shares_one_id(queue: FakeQueue) -> None:
    tracer = epsagon.create_tracer()
    continue_context(tracer, CALLER)
    with tracer, current.within(tracer):
        ids = epsagon.current_ids()
        assert ids is not None
        assert (ids.trace_id, ids.http_trace_id) == (tracer.trace_id, CALLER.trace_id)


def test_attached_process_has_the_openers_ids(queue: FakeQueue) -> None:
    with epsagon.trace("a") as tracer:
        theirs, handle = epsagon.current_ids(), tracer.handle()
    with epsagon.attach(handle):
        ids = epsagon.current_ids()
        assert ids is not None and theirs is not None
        assert (ids.trace_id, ids.http_trace_id) == (theirs.trace_id, theirs.http_trace_id)


def test_global_tracer_is_the_last_resort(queue: FakeQueue) -> None:
    tracer = epsagon.create_global_tracer()
    assert epsagon.current_ids() is None
    with tracer:
        ids = epsagon.current_ids()
        assert ids is not None and ids.trace_id == tracer.trace_id
    assert epsagon.current_ids() is None


@pytest.mark.parametrize("config", [{"disable": True}, {"token": ""}])
def test_what_is_not_recorded_has_no_ids(queue: FakeQueue, config: dict[str, Any]) -> None:
    epsagon.init(**config)
    with epsagon.trace("a"):
        assert epsagon.current_ids() is None


def test_what_is_not_traced_has_no_ids(queue: FakeQueue) -> None:
    with epsagon.trace("a"), current.within(current.NOT_TRACED):
        assert epsagon.current_ids() is None


def test_log_line_opens_no_trace(queue: FakeQueue, instrumented: None, caplog: pytest.LogCaptureFixture) -> None:
    """A block whose trace has ended opens one when it is added to, and says so at debug level."""
    caplog.set_level(logging.DEBUG)
    epsagon.init(debug=True)
    with epsagon.trace("a") as tracer, epsagon.trace("block"):
        tracer.send_stop_signal()
        logging.getLogger("shop").info("paid")
        assert queue.kinds.count("OPEN") == 1
        epsagon.label("k", 1)
        assert queue.kinds.count("OPEN") == 2
        own = epsagon.current_ids()
        assert own is not None and own.http_trace_id == tracer.trace_id != own.trace_id


# logging


def test_each_record_has_the_ids(queue: FakeQueue, instrumented: None, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("shop")
    with epsagon.trace("a"):
        ids = epsagon.current_ids()
        log.warning("paid")
    log.warning("done")
    inside, outside = caplog.records
    assert ids is not None
    assert formatted(inside) == " ".join(ids)
    assert formatted(outside) == "  "
    assert "%(trace_id)s" in integration.FORMAT and logging.Formatter(integration.FORMAT).format(inside)


def test_record_may_go_to_a_process_without_this_package(
    queue: FakeQueue, instrumented: None, caplog: pytest.LogCaptureFixture
) -> None:
    with epsagon.trace("a"):
        logging.getLogger("shop").warning("paid %d", 1)
    [record] = caplog.records
    read = pickle.loads(pickle.dumps(record))
    assert b"epsagon" not in pickle.dumps(record)
    assert vars(copy.copy(record)) == vars(read) == vars(record) and formatted(read) == formatted(record) != "  "


def test_applications_own_records_stay(
    queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Theirs(logging.LogRecord):
        pass

    logging.setLogRecordFactory(Theirs)
    try:
        integration.instrument()
        logging.getLogger("shop").warning("paid")
        integration.uninstrument()
        assert logging.getLogRecordFactory() is Theirs
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    assert type(caplog.records[0]) is Theirs and formatted(caplog.records[0]) == "  "


def test_applications_own_values_stay(queue: FakeQueue, instrumented: None, caplog: pytest.LogCaptureFixture) -> None:
    with epsagon.trace("a") as tracer:
        logging.getLogger("shop").warning("paid", extra={"trace_id": "mine"})
    assert formatted(caplog.records[0]) == f"mine {tracer.trace_id[:16]} {tracer.trace_id}"


# structlog


def test_structlogs_entries_have_the_ids(queue: FakeQueue) -> None:
    capture = LogCapture()
    log = structlog.wrap_logger(None, processors=[add_ids, capture])
    with epsagon.trace("a"):
        ids = epsagon.current_ids()
        log.info("paid")
        log.info("paid", trace_id="mine")
    log.info("done")
    assert ids is not None
    inside, own, outside = capture.entries
    assert inside == {"event": "paid", "log_level": "info", **ids._asdict()}
    assert own["trace_id"] == "mine" and own["span_id"] == ids.span_id
    assert outside == {"event": "done", "log_level": "info"}
