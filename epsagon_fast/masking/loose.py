"""Masks events, labels and exceptions by names as people write them, wherever such a name may stand."""

import itertools
import re
from collections.abc import Iterable

import orjson

from epsagon_fast.hints import Any, Final
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK

from .keys import Keys
from .search import search_for
from .texts import Texts

_WORD: Final = pattern(r"[\w-]+(?:\.[\w-]+)*")
# An escape with which JSON or a URL writes ASCII.
_HIDING: Final = pattern(r"\\u00[2-7]|%[2-7]")
# Of a resource, texts that may say more than a name.
_TOLD: Final = ("name", "operation")
# Frames with their lines of source, and the type of the exception behind them: its name may look like that of a secret.
_FRAMES: Final = pattern(
    r"""^[ |+]*+File "[^"\n]*+", line \d++[^\n]*+(?:\n[ |]*    [^\n]*+)*+(?:\n[ |]*+[\w.]++(?=: ))?""", re.MULTILINE
)


class LooseMask:
    """Masks by the ignored keys of one config. Without keys it changes nothing.

    Masking twice changes nothing more, so a record that the journal replays may pass through again.
    """

    def __init__(self, ignored_keys: Iterable[str]) -> None:
        self.keys = Keys(ignored_keys)
        self._texts = Texts(self.keys)
        self.may_change = search_for(self.keys) if self.keys else lambda event: False

    def __bool__(self) -> bool:
        return bool(self.keys)

    def event(self, event: bytes) -> bytes:
        """Return an event's JSON masked; the same object if nothing had to be.

        Raises ValueError if it had to be read and is not JSON.
        """
        if not self.may_change(event):
            return event
        decoded = orjson.loads(event)
        return orjson.dumps(decoded) if self.runner(decoded) else event

    def exception(self, exception: bytes) -> bytes:
        """Return an exception's JSON, masked as an event's."""
        if not self.may_change(exception):
            return exception
        decoded = orjson.loads(exception)
        return orjson.dumps(decoded) if self._exception(decoded) else exception

    def runner(self, event: Any) -> bool:
        """Mask a decoded event, whole or partial, in place; return whether anything changed."""
        if not self.keys or not isinstance(event, dict):
            return False
        resource = event.get("resource")
        metadata = resource.get("metadata") if isinstance(resource, dict) else None
        changed = self._texts.nested(metadata) if isinstance(metadata, dict) else False
        changed |= self._resource(resource) if isinstance(resource, dict) else False
        return self._exception(event.get("exception")) or changed

    def _resource(self, resource: dict[str, Any]) -> bool:
        """Mask what a resource and what was done with it are called: a URL, a statement, a path with its query."""
        told = {name: resource[name] for name in _TOLD if isinstance(resource.get(name), str)}
        shown = {name: self.text(text) for name, text in told.items()}
        resource.update(shown)
        return shown != told

    def label(self, key: str, value: Any) -> tuple[str, Any]:
        """Return a label masked; the same objects if nothing in them is secret."""
        if key in self.keys:
            return key, MASK
        return self.text(key), self.text(value) if isinstance(value, str) else value

    def text(self, text: str) -> str:
        """Return a text masked; the same object if nothing in it is secret."""
        return self._texts.text(text) if self.keys else text

    def may_mean_key(self, text: str) -> bool:
        """Return whether a key may stand anywhere in a text, also where nothing says that it is a name."""
        if not self.keys:
            return False
        words = _WORD.findall(text)
        parts = (*words, *(part for word in words if "." in word for part in word.split(".")))
        # A name of several words, as `api key`.
        pairs = map("".join, itertools.pairwise(words))
        return _HIDING.search(text) is not None or any(name in self.keys for name in (*parts, *pairs))

    def _exception(self, exception: Any) -> bool:
        """Mask what the application adds to an exception, its message, and the messages in its traceback."""
        if not isinstance(exception, dict):
            return False
        added, message, traceback = map(exception.get, ("additional_data", "message", "traceback"))
        changed = self._texts.nested(added) if isinstance(added, dict) else False
        told = traceback
        if isinstance(message, str) and (shown := self.text(message)) != message:
            exception["message"], changed = shown, True
            told = told.replace(message, shown) if isinstance(told, str) else told
        if isinstance(told, str) and (told := self._messages(told)) != traceback:
            exception["traceback"], changed = told, True
        return changed

    def _messages(self, traceback: str) -> str:
        """Mask what stands between the frames: messages, also of exceptions that led to this one."""
        parts, copied = [], 0
        for frames in _FRAMES.finditer(traceback):
            parts += [self.text(traceback[copied : frames.start()]), frames[0]]
            copied = frames.end()
        return "".join([*parts, self.text(traceback[copied:])])
