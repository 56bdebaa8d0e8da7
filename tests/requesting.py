"""What the tests of requests over WSGI and over ASGI have in common."""

from collections.abc import Callable

import pytest

import epsagon_fast as epsagon
from epsagon_fast.producer.process import process

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def ignoring(patch: pytest.MonkeyPatch) -> None:
    """Have another endpoint ignored than the one that is asked."""
    patch.setenv("EPSAGON_ENDPOINTS_TO_IGNORE", "/other")


# What lets Python begin the next requests.
UNUSUAL: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "endpoints to ignore": ignoring,
    "values": lambda patch: epsagon.init(metadata_only=False),
    "sampling": lambda patch: epsagon.init(sample_rate=0.5),
    "debugging": lambda patch: epsagon.init(debug=True),
    "strict": lambda patch: epsagon.init(privacy="strict"),
    "disabled": lambda patch: epsagon.init(disable=True),
    "shut down": lambda patch: setattr(process, "is_shut_down", True),
}
