"""The payload of an OPEN record: the config of the trace, and its runner as far as it is known."""

import platform
import time
from functools import lru_cache
from typing import Final

import orjson

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.queue.ring import own_pid

from .fitting import fitted_event

PLATFORM: Final = f"python {platform.python_version()}"


def opening(config: ResolvedConfig, runner: bytes | None) -> bytes:
    """Return the payload of an OPEN as JSON. `runner`: the runner event in the wire's form; None: not known yet."""
    return orjson.dumps(
        {
            "config": _wire(config, own_pid()),
            "platform": PLATFORM,
            "runner": None if runner is None else orjson.Fragment(runner),
            "opened_at": time.time(),
        }
    )


def fitted_opening(config: ResolvedConfig, runner: bytes | None, limit_bytes: int) -> tuple[bytes, bytes | None]:
    """Return an OPEN's payload, and the runner in it: as much of `runner` as leaves it at most `limit_bytes` long."""
    opened = opening(config, runner)
    excess_bytes = len(opened) - limit_bytes
    if excess_bytes <= 0 or runner is None:
        return opened, runner
    smaller = fitted_event(runner, len(runner) - excess_bytes, config).data
    # Without even a stub: the config alone is too large, and all of it is needed.
    return (opened, runner) if smaller is None else (opening(config, smaller), smaller)


# Traces with the same config encode it once in a process. A forked child has an attribute of its own: its pid.
@lru_cache(maxsize=16)
def _wire(config: ResolvedConfig, pid: int) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(config.to_wire()))
