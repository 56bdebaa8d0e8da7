"""The limits of one span: OpenTelemetry's defaults, or what its environment variables say."""

import os
from typing import Final, NamedTuple

from epsagon_fast.digits import number
from epsagon_fast.log import warn_once

# The default of OpenTelemetry's specification.
MOST: Final = 128
_ATTRIBUTES: Final = ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT")
_EVENTS: Final = ("OTEL_SPAN_EVENT_COUNT_LIMIT",)
_LINKS: Final = ("OTEL_SPAN_LINK_COUNT_LIMIT",)
_CHARACTERS: Final = ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")


class Limits(NamedTuple):
    """How much one span keeps. `characters`: of a text in its attributes; None: all."""

    attributes: int = MOST
    events: int = MOST
    links: int = MOST
    characters: int | None = None


def from_environment() -> Limits:
    """Return the limits that are in force. A value that is no number is ignored, with one warning."""
    attributes, events, links = (_number(names, MOST) for names in (_ATTRIBUTES, _EVENTS, _LINKS))
    return Limits(attributes or 0, events or 0, links or 0, _number(_CHARACTERS, None))


def _number(names: tuple[str, ...], default: int | None) -> int | None:
    for name in names:
        said = os.environ.get(name, "").strip()
        if (found := number(said, most=9)) is not None:
            return found
        if said:
            warn_once(
                f"OTEL {name}",
                "%s is no value that can be used: it must be a number",
                name,
                about="OpenTelemetry's environment",
            )
    return default
