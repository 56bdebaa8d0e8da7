"""`Config`, the options as code sets them, and `ResolvedConfig`, in which every option has a value."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Set

import epsagon_fast.config.opentelemetry as opentelemetry
from epsagon_fast.foreign import origin
from epsagon_fast.frozen import KW_ONLY, field, frozen
from epsagon_fast.hints import Any
from epsagon_fast.log import warn_once
from epsagon_fast.protocol import EVERYTHING, SHORTEN, STANDARD, STRICT, STRIP, WireConfig

from .environment import ca_file, default_state_dir, default_url, from_environment, proxy_for
from .options import OPTIONS
from .values import goes_in_clear, is_otlp, otlp_url, wants_protobuf

# Takes an event or an exception as it would leave, and returns it, changed or not; None: it is left out.
Hook = Callable[[dict[str, Any]], dict[str, Any] | None]
Attribute = str | bool | int | float
# As tuples they are kept, and come back if a Config is copied.
Headers = Mapping[str, str] | tuple[tuple[str, str], ...]
Attributes = Mapping[str, Attribute] | tuple[tuple[str, Attribute], ...]

# A ring must hold the records of several traces. Otherwise one burst would fill it before the collector's next pass.
RING_BYTES_PER_TRACE_BYTE = 4


@frozen
class Config:
    """The options as code sets them. None means unset: the environment counts, else the default.

    headers: HTTP headers of each request, secrets like the token. resource_attributes: what OTLP says of the process.
    send_timeout_s, shutdown_timeout_s: seconds. max_trace_size_bytes: UTF-8 bytes of a trace's JSON body. ring_bytes:
    capacity of this process's ring, at least four times the trace limit. trimming: what gives way in a trace over its
    limit, "strip" or "shorten". sampling: which finished traces are sent, "" for all. sample_rate: the share, 0 to 1,
    of what begins here that is recorded; below 1 a caller's flag decides for what that caller causes. ignored_keys:
    names of keys whose values are masked, `*` in them stands for any text; default_ignored_keys: whether usual names of
    secrets are masked too. masking: how names are compared, "loose" or "exact". privacy: how much is recorded,
    "strict", "standard" or "everything"; metadata_only says the last two too. allowed_keys, allowed_exceptions: what
    "strict" keeps beside what it knows: keys of metadata and labels, in which `*` stands for any text, and names of
    types. before_send: gets each event and exception in this process, as a dict, and returns what is sent. runtime_dir,
    state_dir: made absolute. Raises TypeError or ValueError for a value that is not allowed.
    """

    _: KW_ONLY
    application_name: str | None = None
    token: str | None = field(default=None, repr=False)
    collector_url: str | None = None
    headers: Headers | None = field(default=None, repr=False)
    resource_attributes: Attributes | None = None
    metadata_only: bool | None = None
    privacy: str | None = None
    allowed_keys: list[str] | tuple[str, ...] | Set[str] | None = None
    allowed_exceptions: list[str] | tuple[str, ...] | Set[str] | None = None
    before_send: Hook | None = None
    debug: bool | None = None
    send_timeout_s: float | None = None
    disable: bool | None = None
    test_mode: bool | None = None
    ignored_keys: list[str] | tuple[str, ...] | Set[str] | None = None
    default_ignored_keys: bool | None = None
    masking: str | None = None
    max_trace_size_bytes: int | None = None
    trimming: str | None = None
    sampling: str | None = None
    sample_rate: float | None = None
    runtime_dir: str | os.PathLike[str] | None = None
    state_dir: str | os.PathLike[str] | None = None
    ring_bytes: int | None = None
    shutdown_timeout_s: float | None = None

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is not None:
                # The class is frozen, but this is still part of its construction.
                object.__setattr__(self, name, option.accept(name, value))
        if None not in (self.privacy, self.metadata_only) and self.metadata_only is (self.privacy == EVERYTHING):
            contradiction = "privacy=%r contradicts metadata_only=%r: leave one of them out"
            raise ValueError(contradiction % (self.privacy, self.metadata_only))

    def resolve(self, warn: bool = True) -> "ResolvedConfig":
        """Return a Config with no field unset: code, then environment, then default.

        `warn`: log what keeps its traces from arriving, or from arriving unread.
        """
        values: dict[str, Any] = {name: self.value(name) for name in OPTIONS}
        values["privacy"] = mode = _mode(self)
        values["metadata_only"] = mode != EVERYTHING
        if values["collector_url"] is None:
            values |= _of_opentelemetry(values, self)
        sends = warn and not values["disable"] and not values["test_mode"]
        may_send = values["token"] or is_otlp(values["collector_url"] or "")
        if sends and not may_send:
            warn_once(
                "token", "No token is set (init(token=...) or EPSAGON_TOKEN): no trace is sent", about="a backend"
            )
        if values["collector_url"] is None:
            values["collector_url"] = default_url(warn=sends and may_send)
        if sends and may_send:
            _warn_of_readers(values["collector_url"])
            _warn_of_otlp(values["collector_url"])
        if values["trimming"] is None:
            values["trimming"] = SHORTEN if is_otlp(values["collector_url"]) else STRIP
        if values["state_dir"] is None:
            values["state_dir"] = default_state_dir()
        values["ring_bytes"] = max(values["ring_bytes"], RING_BYTES_PER_TRACE_BYTE * values["max_trace_size_bytes"])
        return ResolvedConfig(**values)

    def value(self, name: str) -> Any:
        """Return one field from code, environment or default; None if only `resolve` knows the default."""
        value = getattr(self, name)
        if value is None:
            value = from_environment(name)
        return OPTIONS[name].default if value is None else value

    def to_wire(self) -> WireConfig:
        """Return the config for an OPEN record, in plain JSON values.

        The proxy and the CA file are looked up here, because the collector has the environment of another process.
        """
        config = self.resolve()
        wire: WireConfig = {
            "app_name": config.application_name,
            "token": config.token,
            "collector_url": config.collector_url,
            "metadata_only": config.metadata_only,
            "debug": config.debug,
            "send_timeout_s": config.send_timeout_s,
            "ignored_keys": list(config.ignored_keys),
            "masking": config.masking,
            "default_ignored_keys": config.default_ignored_keys,
            "max_trace_size_bytes": config.max_trace_size_bytes,
            "trimming": config.trimming,
            "state_dir": config.state_dir,
            "proxy_url": proxy_for(config.collector_url),
            "ca_file": ca_file(),
        }
        if config.sampling:
            wire["sampling"] = config.sampling
        if is_otlp(config.collector_url):
            _add_otlp(wire, config)
        elif config.headers:
            wire["headers"] = json.dumps(dict(config.headers))
        return wire


class ResolvedConfig(Config):
    """A Config in which every field but `before_send` has a value.

    runtime_dir "": the queue chooses a folder. state_dir "": there is no home directory, so stored traces go into the
    collector's own folder. `enabled`: whether traces are recorded at all: not disabled, and there is a token, which
    OTLP does not need. `keeps_types`: whether the backend's format knows numbers and bools in metadata, and not only
    texts. `is_guarded`: whether records are looked through before they leave the process; see producer/guard.py.
    """

    application_name: str
    token: str
    collector_url: str
    headers: tuple[tuple[str, str], ...]
    resource_attributes: tuple[tuple[str, Attribute], ...]
    metadata_only: bool
    privacy: str
    allowed_keys: tuple[str, ...]
    allowed_exceptions: tuple[str, ...]
    before_send: Hook | None
    debug: bool
    send_timeout_s: float
    disable: bool
    test_mode: bool
    ignored_keys: tuple[str, ...]
    default_ignored_keys: bool
    masking: str
    max_trace_size_bytes: int
    trimming: str
    sampling: str
    sample_rate: float
    runtime_dir: str
    state_dir: str
    ring_bytes: int
    shutdown_timeout_s: float
    # Reckoned once, because each trace asks for them.
    enabled = False
    keeps_types = False
    is_guarded = False

    def __post_init__(self) -> None:
        super().__post_init__()
        keeps_types = is_otlp(self.collector_url)
        object.__setattr__(self, "keeps_types", keeps_types)
        object.__setattr__(self, "is_guarded", self.privacy == STRICT or self.before_send is not None)
        object.__setattr__(self, "enabled", not self.disable and (self.token != "" or keeps_types))

    def resolve(self, warn: bool = True) -> "ResolvedConfig":
        """Return this object, which is resolved already."""
        return self


def _mode(said: Config) -> str:
    """Return how much is recorded. Code counts before the environment, there too if it is said in the other field."""
    for source in (said.__getattribute__, from_environment):
        mode, metadata_only = source("privacy"), source("metadata_only")
        if metadata_only is not None:
            otherwise = STANDARD if metadata_only else EVERYTHING
            if mode is not None and metadata_only is (mode == EVERYTHING):
                # Only the environment comes here: Config refuses both in code. The choice that shows less counts.
                mode = STANDARD if mode == EVERYTHING else mode
                warn_once(
                    "privacy", "EPSAGON_PRIVACY contradicts EPSAGON_METADATA: privacy is %s", mode, about="privacy"
                )
            mode = mode or otherwise
        if mode is not None:
            return str(mode)
    return STANDARD


def _of_opentelemetry(values: dict[str, Any], said: Config) -> dict[str, Any]:
    """Return the options that OpenTelemetry's environment says, where ours says nothing."""
    url = opentelemetry.url()
    if url is None:
        return {}
    found: dict[str, Any] = {"collector_url": url}
    if opentelemetry.is_off() and said.disable is None and from_environment("disable") is None:
        found["disable"] = True
    timeout_s = opentelemetry.timeout_s()
    if timeout_s is not None and said.send_timeout_s is None and from_environment("send_timeout_s") is None:
        found["send_timeout_s"] = timeout_s
    return found


def _add_otlp(wire: WireConfig, config: ResolvedConfig) -> None:
    """Add to the wire form of a config that sends OTLP what is known of the process, and OpenTelemetry's environment.

    What code says counts before that.
    """
    said = opentelemetry.resource_attributes() | dict(config.resource_attributes)
    wire["resource_attributes"] = _of_this_process() | said
    headers = dict(config.headers)
    # A secret header is for the endpoint that stands beside it, and for no other.
    if wire["collector_url"] == opentelemetry.url():
        ours = {name.lower() for name in headers}
        headers |= {name: value for name, value in opentelemetry.headers().items() if name.lower() not in ours}
        for file, path in opentelemetry.tls_files():
            wire[file] = path
    if headers:
        wire["headers"] = json.dumps(headers)


def _of_this_process() -> dict[str, Attribute]:
    """Return OpenTelemetry's attributes of a process, by the names of its semantic conventions."""
    runtime = sys.implementation
    return {
        "host.name": os.uname().nodename,
        "process.pid": os.getpid(),
        "process.runtime.name": runtime.name,
        "process.runtime.version": ".".join(map(str, runtime.version[:3])),
        "process.runtime.description": sys.version,
    }


def _warn_of_readers(url: str) -> None:
    if goes_in_clear(url):
        message = "Traces and their token go to %s unencrypted: https:// keeps them from those on the way"
        warn_once("in clear", message, origin(url), about="encryption")


def _warn_of_otlp(url: str) -> None:
    if advised := otlp_url(url):
        message = "%s looks like an OTLP endpoint, which does not store what is sent there now: name it %s"
        warn_once("looks like OTLP", message, origin(url), advised, about="OTLP")
    if wants_protobuf(url) and not _has_protobuf():
        message = "pip install 'epsagon-fast[otlp]' to send protobuf to %s: JSON is sent now"
        warn_once("protobuf", message, origin(url), about="OTLP")


def _has_protobuf() -> bool:
    from importlib.util import find_spec

    try:
        return find_spec("opentelemetry.proto") is not None
    except ImportError:
        return False
