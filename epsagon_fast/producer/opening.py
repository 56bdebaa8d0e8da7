"""What an OPEN record says: how the trace is to be treated, and what is known of its runner."""

import platform
import time
from functools import lru_cache
from typing import Final

import orjson

from epsagon_fast.config import ResolvedConfig

PLATFORM: Final = f"python {platform.python_version()}"


def opening(config: ResolvedConfig, runner: bytes | None) -> bytes:
    """Return the payload of an OPEN, JSON. `runner`: that event as the wire has it, or None if none is known yet."""
    return orjson.dumps(
        {
            "config": _wire(config),
            "platform": PLATFORM,
            "runner": None if runner is None else orjson.Fragment(runner),
            "opened_at": time.time(),
        }
    )


# Traces of one config write it once.
@lru_cache(maxsize=16)
def _wire(config: ResolvedConfig) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(config.to_wire()))
