"""How a process is to be traced: `Config`, and where each option comes from when code does not say it.

Order: code, then environment, then default. What is wrong in code raises at once; what is wrong in the environment is
logged once and ignored, since those who set it cannot see a traceback of ours. No module here does work at import: the
proxy look-up, the only part that needs a heavy import, happens when a trace's config is written and a proxy is set.

    options.py       the list of options: variable, default, what is allowed
    values.py        the kinds of options: text, flag, size, seconds, path
    environment.py   what the environment says, and what follows from it
    config.py        Config and ResolvedConfig
"""

from .config import Config, ResolvedConfig
from .environment import may_need_proxy
from .options import DEFAULT_RING_BYTES, MIN_RING_BYTES, OPTIONS

__all__ = ["DEFAULT_RING_BYTES", "MIN_RING_BYTES", "OPTIONS", "Config", "ResolvedConfig", "may_need_proxy"]
