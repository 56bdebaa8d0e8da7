"""The terms of a trace, from its opener's config: where it goes, how it is written, how large it may be."""

from functools import lru_cache

import orjson

from epsagon_fast.collector.formats import Envelope
from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.parcel import Destination, from_config
from epsagon_fast.hints import Any, cast
from epsagon_fast.masking import Mask, mask
from epsagon_fast.protocol import EXACT, MAX_TRACE_BYTES, SHORTEN, WireConfig


class Terms:
    """The terms of all traces with the same config. Its parts are read for each trace, in slots faster than in a tuple.

    platform: what the OPEN says of its process. mask: None: it hides nothing.
    """

    __slots__ = (
        "config",
        "debug",
        "destination",
        "envelope",
        "envelope_bytes",
        "limit_bytes",
        "mask",
        "platform",
        "samples",
        "shortens",
    )

    def __init__(self, config: WireConfig, platform: str, mask: Mask | None) -> None:
        self.config = config
        self.platform = platform
        self.destination: Destination = from_config(config)
        self.envelope: Envelope = format_for(self.destination).envelope(config, platform)
        # How much of the limit that takes.
        self.envelope_bytes = self.envelope.size_bytes
        self.limit_bytes = config["max_trace_size_bytes"]
        # Whether values are shortened before events are stripped.
        self.shortens = config.get("trimming") == SHORTEN
        self.debug = bool(config.get("debug"))
        # Whether the application has rules for which traces are sent.
        self.samples = bool(config.get("sampling"))
        self.mask = mask


_OPTIONAL_TEXTS = ("proxy_url", "ca_file", "headers", "client_certificate", "client_key", "sampling")


# A config that goes to OTLP names its process.
@lru_cache(maxsize=1024)
def terms_of(config_json: bytes, platform: str) -> Terms:
    """Return the terms of a config, which is orjson's form of what an OPEN brought. Raises one of BROKEN."""
    config = _checked(orjson.loads(config_json))
    return Terms(config, platform, mask_in(config) or None)


def mask_in(config: WireConfig) -> Mask:
    """Return the mask of a config. One of an earlier version masks exactly, and no key by default."""
    keys, defaults = tuple(config["ignored_keys"]), config.get("default_ignored_keys", False)
    return mask(keys, defaults, config.get("masking", EXACT))


def _checked(config: dict[str, Any]) -> WireConfig:
    """Return a config whose values can be used without a look later. Raises one of BROKEN."""
    texts = [config[name] for name in ("app_name", "token", "collector_url")]
    texts += [config[name] for name in _OPTIONAL_TEXTS if config.get(name) is not None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("not a text")
    # A larger limit would let a trace grow beyond what memory is planned for.
    if not 1 <= config["max_trace_size_bytes"] <= MAX_TRACE_BYTES:
        raise ValueError("not a trace's limit")
    return cast(WireConfig, config)
