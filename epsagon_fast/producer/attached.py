"""Adds to a trace of another process: `tracer.handle()` there, `attach(handle)` here."""

import os
from collections.abc import Iterator

from epsagon_fast.config import Config
from epsagon_fast.hints import Final
from epsagon_fast.protocol import Outcome

from . import exiting
from .entering import Entered
from .handle import Handle
from .ids import SPAN_ID_DIGITS
from .process import process
from .states import LEFT, OPEN, SILENT
from .tracer import ELSEWHERE, Tracer

_OF_THE_OPENER: Final = (
    *("max_trace_size_bytes", "metadata_only", "debug", "trimming"),
    *("ignored_keys", "default_ignored_keys", "masking"),
    *("privacy", "allowed_keys", "allowed_exceptions"),
)


class Attached(Entered, Tracer):
    """A trace of another process. In `with` it is the current trace; the end of the block restores the one before."""

    def __init__(self, handle: Handle) -> None:
        """Join the trace. If its folder does not exist, records are ignored and counted."""
        self._handle = handle
        wire = {name: getattr(handle, name) for name in _OF_THE_OPENER}
        # The opener's config counts for the trace, this process's own config for its ring and its end.
        mine = {name: process.setting(name) for name in ("ring_bytes", "shutdown_timeout_s", "before_send")}
        # Disabled, because this process opens and sends nothing for the trace, and so needs no token.
        super().__init__(Config(disable=True, **wire, **mine).resolve())
        self.context = handle.context
        self.within_id = handle.parent_id
        self.has_blocks = handle.parent_id is not None
        process.attach(self)
        if process.is_shut_down:
            self._state = LEFT
        elif handle.runtime_dir:
            exiting.register()
            self._use(process.writer_at(handle.runtime_dir, self.config.ring_bytes), handle.keeps_types)
            self._state = OPEN
            self._let_pass()
        else:
            self._state = SILENT

    def _identify(self, span_id: str | None = None) -> None:
        self.owner_pid = os.getpid()
        self.trace_id = self._handle.trace_id
        self._id = bytes.fromhex(self.trace_id)
        self.span_id = self.trace_id[:SPAN_ID_DIGITS]

    def send_stop_signal(self) -> None:
        """Do nothing: only the opener closes a trace."""

    def abandon(self) -> None:
        """Take no more records. The trace goes on."""
        self._leave()

    def _until_settled(self, timeout_s: float | None) -> Iterator[float]:
        # The outcome is told to the opener only, so there is nothing to wait for.
        return iter(())

    def _known_outcome(self) -> Outcome:
        return Outcome.PENDING.because(ELSEWHERE)

    def open(self) -> "Attached":
        """Do nothing: the trace runs."""
        return self

    def close(self, error: BaseException | None) -> None:
        """Do nothing: the trace goes on."""

    def cut_off(self) -> None:
        """Do nothing, as at the end."""


def attach(handle: Handle) -> Attached:
    """Return the trace that `handle` names, to add to it from this process or, in `with`, to make it current."""
    return Attached(handle)
