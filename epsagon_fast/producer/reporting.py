"""Logs why traces were not delivered, each reason once in a process. It only reads memory."""

from epsagon_fast.log import warn, warn_once
from epsagon_fast.protocol import Outcome

from .interfaces import TraceWriter
from .process import process


def report(writer: TraceWriter) -> None:
    """Log each new reason why a trace of this writer was not delivered, and once that its ring was full."""
    for _trace_id, outcome in writer.recent_settlements():
        if outcome.reason and outcome != Outcome.DELIVERED:
            said = outcome.name.lower(), outcome.reason
            warn_once(f"settled:{outcome.reason}", "A trace was %s: %s", *said, about="losses")
    if writer.overflowed:
        message = "Records are refused, and counted: %s is full; see `epsagon-fast status`"
        warn_once("queue_full", message, writer.path, about="capacity")


def report_all() -> None:
    """Log the new reasons in all rings of this process."""
    for writer in process.writers.known():
        report(writer)


def report_new_refusals() -> None:
    """Log how many records this process refused since the last call, by reason. In between only the first is logged."""
    refused = process.refusals()
    new = refused.total() - process.own.told_refusals
    if new > 0:
        process.own.told_refusals += new
        reasons = ", ".join(f"{reason} {count}" for reason, count in refused.items())
        message = "%d records were refused since the last flush; by this process in all: %s"
        warn(message, new, reasons, about="losses")
