"""The options of tracing: `Config`, and where each option's value comes from.

Code counts first, then the environment, then the default. A wrong value in code raises at once. A wrong value in the
environment is logged once and ignored, because the people who set it do not see a traceback. No module here does work
at import: the proxy look-up, which needs a heavy import, happens when a trace's config is encoded and a proxy is set.

    options.py       the list of options: variable, default, allowed values
    values.py        the kinds of options: text, flag, size, seconds, path
    environment.py   values from the environment, and defaults that depend on it
    opentelemetry.py OpenTelemetry's own environment
    config.py        Config and ResolvedConfig
"""

from .config import Attributes, Config, Headers, Hook, ResolvedConfig
from .environment import may_need_proxy
from .options import DEFAULT_RING_BYTES, MIN_RING_BYTES, OPTIONS
from .values import otlp_url, stays_here

__all__ = [
    "DEFAULT_RING_BYTES",
    "MIN_RING_BYTES",
    "OPTIONS",
    "Attributes",
    "Config",
    "Headers",
    "Hook",
    "ResolvedConfig",
    "may_need_proxy",
    "otlp_url",
    "stays_here",
]
