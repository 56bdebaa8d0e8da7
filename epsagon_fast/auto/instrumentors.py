"""OpenTelemetry's instrumentations, as they are installed: packages with an entry point `opentelemetry_instrumentor`.

They record through OpenTelemetry's API, so integrations/opentelemetry is what they record on.
"""

import functools
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, NamedTuple

from epsagon_fast.interrupts import let_pass

from .libraries import LIBRARIES, Library

API: Final = "opentelemetry.trace"
OURS: Final = "epsagon_fast.integrations.opentelemetry"
GROUP: Final = "opentelemetry_instrumentor"
# What our own integrations record. requests sends through urllib3, so that one event stands for one request.
COVERED: Final = frozenset(
    {
        *("asgi", "django", "falcon", "fastapi", "flask", "pyramid", "quart", "starlette", "wsgi"),
        *("celery", "logging", "requests", "threading", "urllib3"),
    }
)
# Command lines, among them those of servers: a span that never ends around everything. And metrics, no spans.
UNWANTED: Final = frozenset({"asyncclick", "click", "system_metrics"})
_ENTRY: Final = re.compile(r"([^\s=\[][^=]*?)\s*=\s*([\w.]+)\s*:\s*(\w+)")
_INSTRUMENTS: Final = re.compile(r"^Requires-Dist: ([\w.-]+).*extra == ['\"]instruments(?:-any)?['\"]", re.MULTILINE)


class Instrumentor(NamedTuple):
    """An installed instrumentation.

    name: of its entry point. target: the module and the class that this names. modules: it is started when one of them
    was imported. distributions: the packages that bring these.
    """

    name: str
    target: tuple[str, str]
    modules: tuple[str, ...]
    distributions: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The names by which it can be left out: its own, and those of its library."""
        tops = (module.partition(".")[0] for module in self.modules)
        return frozenset(map(plain, (self.name, *tops, *self.distributions)))

    def start(self) -> None:
        """Instrument the library, unless the program does so with a tracer provider of its own.

        Raises what the instrumentation raises, as for a version of the library that it does not know.
        """
        trace = import_module(API)
        given = trace.get_tracer_provider()
        if not (isinstance(given, trace.ProxyTracerProvider) or is_ours(given)):
            return
        import_module(OURS).install()
        module, name = self.target
        found = import_module(module)
        if getattr(found.__spec__, "_initializing", False):
            # The program is importing the instrumentation, which imports its library: the program starts it.
            return
        instrumentor = getattr(found, name)()
        # The program may have done so itself.
        if not getattr(instrumentor, "is_instrumented_by_opentelemetry", False):
            instrumentor.instrument(raise_exception_on_conflict=True)
            _started.append(instrumentor)


def is_ours(provider: object) -> bool:
    """Say whether a tracer provider is ours."""
    return type(provider).__module__.startswith(OURS)


def plain(name: str) -> str:
    """Return a name as the names of packages are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


# Instances of the classes that the entry points name.
_started: list[Any] = []


def take_back() -> None:
    """Leave all libraries as they were before they were instrumented."""
    while _started:
        try:
            _started.pop().uninstrument()
        except Exception as error:  # its own failure; the library stays instrumented
            let_pass(error)


@functools.cache
def installed() -> dict[str, Instrumentor]:
    """Return all that are installed, by the name of their entry point."""
    found: dict[str, Instrumentor] = {}
    for name, target, folder in _entry_points():
        if name not in found:
            libraries = [LIBRARIES[name]] if name in LIBRARIES else list(_libraries(folder))
            modules = tuple(library.module for library in libraries)
            distributions = tuple(name for library in libraries for name in library.distributions)
            found[name] = Instrumentor(name, target, modules, distributions)
    return found


def wanted() -> list[Instrumentor]:
    """Return those that record what our own integrations do not."""
    return [each for name, each in installed().items() if name not in COVERED | UNWANTED]


def _entry_points() -> Iterator[tuple[str, tuple[str, str], str]]:
    # As importlib.metadata does, in a tenth of the time.
    for place in dict.fromkeys(sys.path):
        try:
            names = sorted(os.listdir(place or "."))
        except OSError:
            continue
        for folder in (os.path.join(place, name) for name in names if name.endswith((".dist-info", ".egg-info"))):
            for name, module, attribute in _ENTRY.findall(_section(_text(folder, "entry_points.txt"))):
                yield name, (module, attribute), folder


def _section(text: str) -> str:
    return text.partition(f"[{GROUP}]")[2].partition("\n[")[0]


def _libraries(folder: str) -> Iterator[Library]:
    """Yield the libraries that a package says that it instruments. A library's module has the name of its package."""
    known = {name: library for library in LIBRARIES.values() for name in library.distributions}
    for name in _INSTRUMENTS.findall(_text(folder, "METADATA")):
        yield known.get(plain(name)) or Library(plain(name).replace("-", "_"), (plain(name),), "")


def _text(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
