"""Log records know their trace: each gets the attributes `trace_id`, `span_id` and `http_trace_id`.

    import logging
    from epsagon_fast.integrations import logging as epsagon_logging

    epsagon_logging.instrument()
    logging.basicConfig(format=epsagon_logging.FORMAT)

They are "" where nothing is recorded. If the application itself gives an attribute of such a name in `extra`, that
stays. Formatters that write all of a record's extra attributes, as those for JSON do, find them there.
"""

import logging
from typing import Any, Final

from epsagon_fast.producer.context import Ids
from epsagon_fast.producer.correlation import plain_ids

from .wrapping import Method, Wrapped

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s [%(trace_id)s %(span_id)s] %(message)s"
_NOWHERE: Final = ("", "", "")


class RecordWithIds(logging.LogRecord):
    """A LogRecord. Python stores attributes fast that the first objects of a class had, so it is a class of its own."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The process that reads records from a queue need not have this package.
        return logging.makeLogRecord, (vars(self),)


def instrument() -> None:
    """Give the ids to records that loggers make from now on. A second call changes nothing."""
    if logging.getLogRecordFactory() is logging.LogRecord:
        logging.setLogRecordFactory(RecordWithIds)
    _METHOD.put_on()


def uninstrument() -> None:
    """Leave records as they are."""
    if logging.getLogRecordFactory() is RecordWithIds:
        logging.setLogRecordFactory(logging.LogRecord)
    _METHOD.take_off()


def _with_ids(make_record: Method, method: Wrapped) -> Method:
    # Around the logger's method, which refuses an `extra` of a name that the record has; not in a record factory, which
    # comes before it. With the method's own parameters: to hand on any would take twice as long.
    def make_record_with_ids(
        logger: Any,
        name: Any,
        level: Any,
        fn: Any,
        lno: Any,
        msg: Any,
        args: Any,
        exc_info: Any,
        func: Any = None,
        extra: Any = None,
        sinfo: Any = None,
    ) -> Any:
        record = make_record(logger, name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
        if method.is_on:
            ids = plain_ids() or _NOWHERE
            if extra:
                for key, value in zip(Ids._fields, ids, strict=True):
                    record.__dict__.setdefault(key, value)
            else:
                record.trace_id, record.span_id, record.http_trace_id = ids
        return record

    return make_record_with_ids


_METHOD: Final = Wrapped(logging.Logger, "makeRecord", _with_ids)
