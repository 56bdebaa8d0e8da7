"""The list of options. Config, ResolvedConfig and `init` name them all again; a test compares those with this list."""

from epsagon_fast.hints import Final
from epsagon_fast.protocol import (
    DEFAULT_MAX_TRACE_BYTES,
    EVERYTHING,
    EXACT,
    LOOSE,
    MAX_TRACE_BYTES,
    SHORTEN,
    STANDARD,
    STRICT,
    STRIP,
)

from .sampling import rate, rules
from .values import Option, attributes, choice, flag, headers, hook, names, path, seconds, size, text, token, url

DEFAULT_RING_BYTES = 512 * 1024
MIN_RING_BYTES = 64 * 1024
MAX_RING_BYTES = 256 * 1024 * 1024

OPTIONS: Final[dict[str, Option]] = {
    "application_name": text("EPSAGON_APP_NAME", ""),
    "token": token("EPSAGON_TOKEN"),
    "collector_url": url("EPSAGON_COLLECTOR_URL"),
    "headers": headers("EPSAGON_HEADERS"),
    "resource_attributes": attributes(),
    "metadata_only": flag("EPSAGON_METADATA", True),
    "privacy": choice("EPSAGON_PRIVACY", STRICT, STANDARD, EVERYTHING),
    "allowed_keys": names("EPSAGON_ALLOWED_KEYS"),
    "allowed_exceptions": names("EPSAGON_ALLOWED_EXCEPTIONS"),
    "before_send": hook(),
    "debug": flag("EPSAGON_DEBUG", False),
    "send_timeout_s": seconds("EPSAGON_SEND_TIMEOUT_SEC", 1.0, positive=True),
    "disable": flag("DISABLE_EPSAGON", False),
    "test_mode": flag(None, False),
    "ignored_keys": names("EPSAGON_IGNORED_KEYS"),
    "default_ignored_keys": flag("EPSAGON_DEFAULT_IGNORED_KEYS", True),
    "masking": choice("EPSAGON_MASKING", LOOSE, EXACT, default=LOOSE),
    "max_trace_size_bytes": size("EPSAGON_MAX_TRACE_SIZE", DEFAULT_MAX_TRACE_BYTES, 1, MAX_TRACE_BYTES),
    "trimming": choice("EPSAGON_TRIMMING", STRIP, SHORTEN),
    "sampling": rules("EPSAGON_SAMPLING"),
    "sample_rate": rate("EPSAGON_SAMPLE_RATE", 1.0),
    "runtime_dir": path("EPSAGON_RUNTIME_DIR", ""),
    "state_dir": path("EPSAGON_STATE_DIR", None),
    "ring_bytes": size("EPSAGON_RING_BYTES", DEFAULT_RING_BYTES, MIN_RING_BYTES, MAX_RING_BYTES),
    "shutdown_timeout_s": seconds("EPSAGON_SHUTDOWN_TIMEOUT_SEC", 2.0, positive=False),
}
