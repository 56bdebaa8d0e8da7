"""Our own integrations, and the modules after whose import they start."""

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

from epsagon_fast.integrations.wrapping import Method, Wrapped

from . import applications, giving_way
from .applications import ASGI, FRAMEWORKS, SERVERS
from .instrumentors import API


class Integration(NamedTuple):
    """One of our integrations. name: by which it can be left out. module: after whose import it starts."""

    name: str
    module: str
    start: Callable[[], None]

    @property
    def modules(self) -> tuple[str, ...]:
        """The module, as instrumentors have several."""
        return (self.module,)

    @property
    def names(self) -> frozenset[str]:
        """The names by which it can be left out."""
        return frozenset({self.name})


def _gunicorn() -> None:
    base = import_module("gunicorn.app.base").BaseApplication
    Wrapped(base, "do_load_config", _load_with_hooks).put_on()


def _load_with_hooks(load: Method, _: Wrapped) -> Method:
    def do_load_config(app: Any) -> None:
        load(app)
        _add_hooks(app.cfg)

    return do_load_config


def _add_hooks(cfg: Any) -> None:
    """Add our hooks to those of a gunicorn configuration, which may be ours already."""
    from epsagon_fast.integrations import gunicorn

    for hook in (gunicorn.post_worker_init, gunicorn.worker_abort, gunicorn.on_exit):
        name = hook.__name__
        theirs = getattr(cfg, name)
        if theirs is not hook:
            # The abort hook of the program may end the process, so ours comes before it.
            cfg.set(name, _both(hook, theirs) if hook is gunicorn.worker_abort else _both(theirs, hook))


def _both(first: Callable[[Any], None], then: Callable[[Any], None]) -> Callable[[Any], None]:
    def hook(subject: Any) -> None:
        first(subject)
        then(subject)

    return hook


def _uvicorn() -> None:
    Wrapped(import_module("uvicorn.config").Config, "load", _load_traced).put_on()


def _load_traced(load: Method, _: Wrapped) -> Method:
    def load_traced(config: Any) -> None:
        load(config)
        # Whatever the application was, it is ASGI 3 here.
        config.loaded_app = applications.around(config.loaded_app, ASGI)

    return load_traced


def _celery() -> None:
    from epsagon_fast.integrations import celery

    celery.listen()


def _urllib3() -> None:
    from epsagon_fast.integrations import urllib3

    urllib3.instrument(alone=True)


def _sanic() -> None:
    from epsagon_fast.integrations import sanic

    sanic.instrument()


def _logging() -> None:
    from epsagon_fast.integrations import logging

    logging.instrument()


def _threading() -> None:
    from epsagon_fast.integrations import threading

    threading.instrument()


STARTS: Final = (
    Integration("gunicorn", "gunicorn.app.base", _gunicorn),
    Integration("uvicorn", "uvicorn.config", _uvicorn),
    Integration("celery", "celery.app.base", _celery),
    Integration("urllib3", "urllib3", _urllib3),
    Integration("opentelemetry", API, giving_way.watch),
    # The server's modules are loaded with it.
    Integration("sanic", "sanic", _sanic),
    *(Integration(each.name, each.module, functools.partial(applications.serve, each)) for each in SERVERS),
    *(Integration(each.name, each.module, functools.partial(applications.answer, each)) for each in FRAMEWORKS),
)
# What begins with the first of all others: without a trace there is nothing to write into a log line.
ALWAYS: Final = (Integration("logging", "logging", _logging), Integration("threading", "threading", _threading))
