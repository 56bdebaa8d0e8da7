"""Spares a collector modules that others import, and that it needs later or never.

orjson looks up, as it is imported, the types of dataclasses and uuid that it would encode; no collector has any. Each
compiled module asks inspect for the flags of code objects. logging has traceback for the texts of exceptions. With
what they import in turn these four are a quarter of all that a collector would import before it serves. So they have
stand-ins that know the few names. Asked for any other name, a stand-in gives way to the module itself.
"""

import sys
from importlib import import_module
from types import ModuleType

from epsagon_fast.hints import Any, Final


class NoUUID:
    """The type of which a collector has no objects."""


FLAGS: Final = {
    "CO_OPTIMIZED": 0x1,
    "CO_NEWLOCALS": 0x2,
    "CO_VARARGS": 0x4,
    "CO_VARKEYWORDS": 0x8,
    "CO_GENERATOR": 0x20,
    "CO_COROUTINE": 0x80,
    "CO_ASYNC_GENERATOR": 0x200,
}
# Which of the two of uuid's names is asked for depends on orjson's version.
FOR_ORJSON: Final[dict[str, dict[str, Any]]] = {
    "dataclasses": {"_FIELD": object()},
    "uuid": {"UUID": NoUUID, "NAMESPACE_DNS": NoUUID()},
}
# What few collectors need, of our own: OTLP with its metrics.
LATER: Final = ("epsagon_fast.collector.measuring.rounds",)


class StandIn(ModuleType):
    """A module of which a few names are known."""

    def __init__(self, name: str, known: dict[str, Any]) -> None:
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.itself(), name)

    def itself(self) -> ModuleType:
        """Import the module itself."""
        if sys.modules.get(self.__name__) is self:
            # Another thread may have done so in between.
            sys.modules.pop(self.__name__, None)
        return import_module(self.__name__)


def spare() -> None:
    """Import orjson with stand-ins, and leave those whose answers are true. No other thread may run."""
    for name, known in FOR_ORJSON.items():
        sys.modules.setdefault(name, StandIn(name, known))
    try:
        import orjson  # noqa: F401
    finally:
        for name in FOR_ORJSON:
            if isinstance(sys.modules.get(name), StandIn):
                del sys.modules[name]
    sys.modules.setdefault("inspect", StandIn("inspect", FLAGS))
    sys.modules.setdefault("traceback", StandIn("traceback", {}))


def import_now() -> None:
    """Import what is needed later, or once something fails: then its file may be gone."""
    if isinstance(found := sys.modules.get("traceback"), StandIn):
        found.itself()
    for name in LATER:
        import_module(name)
