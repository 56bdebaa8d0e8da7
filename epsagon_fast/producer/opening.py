"""The payload of an OPEN record: the config of the trace, and its runner as far as it is known."""

import platform
import time
from functools import lru_cache

import orjson

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.config import ResolvedConfig
from epsagon_fast.hints import TYPE_CHECKING, Any, Final
from epsagon_fast.queue.beacon import Page

from .fitting import fitted_event
from .interfaces import TraceWriter
from .process import process

__all__ = [
    "beginning",
    "fitted_opening",
    "footing_of",
    "opening",
    "opening_json",
    "pure_footing_of",
    "pure_opening_json",
]

PLATFORM: Final = f"python {platform.python_version()}"


def opening(config: ResolvedConfig, runner: bytes | None) -> bytes:
    """Return the payload of an OPEN as JSON. `runner`: the runner event in the wire's form; None: not known yet."""
    return opening_json(beginning(config), runner or b"null")


def beginning(config: ResolvedConfig) -> bytes:
    """Return an OPEN's payload up to the runner."""
    own = process.own
    known = own.opening
    if known is None or known[0] is not config:
        known = own.opening = config, _begun(config, own.pid)
    return known[1]


def fitted_opening(config: ResolvedConfig, runner: bytes | None, limit_bytes: int) -> tuple[bytes, bytes | None]:
    """Return an OPEN's payload, and the runner in it: as much of `runner` as leaves it at most `limit_bytes` long."""
    opened = opening(config, runner)
    excess_bytes = len(opened) - limit_bytes
    if excess_bytes <= 0 or runner is None:
        return opened, runner
    smaller = fitted_event(runner, len(runner) - excess_bytes, config).data
    # Without even a stub: the config alone is too large, and all of it is needed.
    return (opened, runner) if smaller is None else (opening(config, smaller), smaller)


# Where traces with several configs take turns. A forked child has an attribute of its own in it: its pid.
@lru_cache(maxsize=16)
def _begun(config: ResolvedConfig, pid: int) -> bytes:
    """Return an OPEN's payload up to the runner."""
    return orjson.dumps({"config": config.to_wire(), "platform": PLATFORM})[:-1] + b',"runner":'


def pure_opening_json(begun: bytes, runner: bytes) -> bytes:
    """Return an OPEN's payload. `begun`: all before the runner; `runner`: its JSON."""
    return b'%b%b,"opened_at":%.6f}' % (begun, runner, time.time())


def pure_footing_of(config: ResolvedConfig, writer: TraceWriter, beacons: Page | None, begun: bytes) -> Any:
    """Return what the next traces need that open as one has opened; None: each is opened as the first.

    `beacons`: what Process.beacons returns. `begun`: what `beginning` returns.
    """
    return None


if TYPE_CHECKING or implementation("add_event") != COMPILED:
    footing_of = pure_footing_of
    opening_json = pure_opening_json
else:
    from epsagon_fast.producer._fast_path import footing_of, opening_json
