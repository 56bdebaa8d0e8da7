"""What the environment says: its variables, the build that is installed in it, and what `run` would trace."""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import epsagon_fast as epsagon
import epsagon_fast.auto.listing as listing
import epsagon_fast.auto.watched as watched
import epsagon_fast.compiled as compiled
import epsagon_fast.integrations.choices as choices
from epsagon_fast.backend.place import TOKEN_VARIABLE
from epsagon_fast.config import ResolvedConfig
from epsagon_fast.config.options import OPTIONS
from epsagon_fast.digits import number
from epsagon_fast.foreign import shown
from epsagon_fast.log import logger
from epsagon_fast.pages import see
from epsagon_fast.queue.launch import PASSED_ON

from .finding import LOOK, Finding, odd, well

PREFIX: Final = "EPSAGON_"
# The variables that are no option: each is read where it is needed.
_OTHERS: Final = (
    *("EPSAGON_IN_COLLECTOR", "EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS", "EPSAGON_LAUNCH"),
    *(choices.ENDPOINTS, choices.URLS, choices.LOWEST_ERROR),
    *(watched.CHOICE, watched.VARIABLE, TOKEN_VARIABLE),
    # By compat/ alone.
    *("EPSAGON_DISABLE_ON_TIMEOUT", "EPSAGON_HANDLER", "EPSAGON_LOGGING_TRACING_ENABLED", "EPSAGON_PAYLOADS_TO_IGNORE"),
    *("EPSAGON_PROPAGATE_LAMBDA_ID", "EPSAGON_SEND_TRACE_ON_ERROR", "EPSAGON_STEPS_OUTPUT_PATH"),
)
KNOWN: Final = frozenset(
    name for name in (*_OTHERS, *PASSED_ON, *(option.variable for option in OPTIONS.values())) if name
)


class _Heard(logging.Handler):
    """Keeps what is logged while the configuration is read."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class Contradiction(NamedTuple):
    """Two settings that do not go together: whether they are there, what follows, and what to do."""

    is_there: Callable[[ResolvedConfig], bool]
    text: str
    do: str


def _both(one: str, *others: str) -> Callable[[ResolvedConfig], bool]:
    return lambda config: bool(os.environ.get(one)) and any(map(os.environ.get, others))


CONTRADICTIONS: Final = (
    Contradiction(
        _both("EPSAGON_COLLECTOR_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        "EPSAGON_COLLECTOR_URL and OpenTelemetry's endpoint are set: only the first counts",
        "unset the one that is not meant",
    ),
    Contradiction(
        lambda config: (
            _both("EPSAGON_APP_NAME", "OTEL_SERVICE_NAME")(config)
            and os.environ["EPSAGON_APP_NAME"] != os.environ["OTEL_SERVICE_NAME"]
        ),
        "EPSAGON_APP_NAME and OTEL_SERVICE_NAME are two names for one program",
        "set one of them",
    ),
    Contradiction(
        lambda config: (
            (asked := number(os.environ.get("EPSAGON_RING_BYTES", ""))) is not None and asked < config.ring_bytes
        ),
        "EPSAGON_RING_BYTES is too little for EPSAGON_MAX_TRACE_SIZE: four traces have to fit, so it is more",
        "raise the one or lower the other",
    ),
    Contradiction(
        lambda config: config.sample_rate < 1 and bool(config.sampling),
        "EPSAGON_SAMPLE_RATE and EPSAGON_SAMPLING leave out: what the first does not record, the second cannot keep",
        "use EPSAGON_SAMPLING alone, if all that fails is to be kept",
    ),
)


def resolved() -> tuple[ResolvedConfig, list[Finding]]:
    """Return the configuration, and what its reading warns of."""
    heard = _Heard()
    log = logger()
    propagates, log.propagate = log.propagate, False
    log.addHandler(heard)
    try:
        config = epsagon.Config().resolve()
    finally:
        log.removeHandler(heard)
        log.propagate = propagates
    # Each names its page already.
    said = [text.partition("; see ") for text in heard.texts]
    return config, [Finding("environment", LOOK, text, f"see {page}" if page else "") for text, _, page in said]


def findings(config: ResolvedConfig) -> Iterator[Finding]:
    """Yield what is unknown or contradicts itself, the build, and what would be traced."""
    yield from _variables(config)
    yield _build()
    yield _run()


def _variables(config: ResolvedConfig) -> Iterator[Finding]:
    found = False
    for name in sorted(name for name in os.environ if name.startswith(PREFIX) and name not in KNOWN):
        found = True
        yield odd("environment", f"{shown(name)[1:-1]} is no variable that is read", _meant(name), about="options")
    for each in CONTRADICTIONS:
        if each.is_there(config):
            found = True
            yield odd("environment", each.text, each.do, about="options")
    for name in watched.misunderstood():
        found = True
        text = f"{watched.CHOICE}: {name} is ignored"
        yield odd("environment", text, "write a dash and a name of `epsagon-fast run --list`", about="what run traces")
    if not found:
        set_here = sorted(name for name in os.environ if name in KNOWN and name.startswith((PREFIX, "DISABLE_")))
        yield well("environment", ", ".join(set_here) or "no variable of ours is set")


def _meant(name: str) -> str:
    from difflib import get_close_matches

    from epsagon_fast.compat.options import WITHOUT_MEANING

    if name in WITHOUT_MEANING:
        return f"it is of an older tracer: {WITHOUT_MEANING[name]}"
    near = get_close_matches(name, KNOWN, 1)
    return f"did you mean {near[0]}?" if near else "unset it"


def _build() -> Finding:
    chosen = compiled.overview()
    text = f"{epsagon.__version__}; {', '.join(f'{part} {which}' for part, which in chosen.items())}"
    # Plain Python is slower, but not a fault.
    if all(which == compiled.COMPILED for which in chosen.values()) or os.environ.get("EPSAGON_FAST_IMPL"):
        return well("build", text)
    return odd("build", text, "install it again where a C compiler is, or from a wheel", about="compiled modules")


def _run() -> Finding:
    names = listing.names()
    text = f"`epsagon-fast run` would trace {', '.join(names) or 'nothing'}"
    missing = listing.suggestion()
    if missing.startswith("pip "):
        return well("run", text)._replace(advice=f"for what is installed besides: {missing}{see('what run traces')}")
    return well("run", text)
