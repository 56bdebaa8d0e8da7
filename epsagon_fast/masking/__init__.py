"""Hides the values of ignored keys, so that they never leave the machine: docs/masking.md says which, and where.

Both sides of the queue mask. A worker that has to cut an event hides its secrets first, because the collector could not
find a key in half a text.
"""

from functools import lru_cache

from epsagon_fast.hints import Protocol
from epsagon_fast.protocol import EXACT

from .exact import ExactMask
from .keys import DEFAULT_KEYS
from .loose import LooseMask

__all__ = ["ExactMask", "LooseMask", "Mask", "MaskingTerms", "client_mask_of", "mask", "mask_of"]

Mask = LooseMask | ExactMask


class MaskingTerms(Protocol):
    """The options that say what is masked, in a config or a handle."""

    @property
    def ignored_keys(self) -> tuple[str, ...]: ...
    @property
    def default_ignored_keys(self) -> bool: ...
    @property
    def masking(self) -> str: ...


def mask_of(terms: MaskingTerms) -> Mask:
    """Return the mask of a config."""
    return mask(terms.ignored_keys, terms.default_ignored_keys, terms.masking)


# All traces of one config share its mask.
@lru_cache(maxsize=64)
def mask(ignored_keys: tuple[str, ...], default_ignored_keys: bool, masking: str) -> Mask:
    """Return a mask by the values of its options. epsagon-go's way knows no keys by default."""
    return ExactMask(ignored_keys) if masking == EXACT else _loose(ignored_keys, default_ignored_keys)


def client_mask_of(terms: MaskingTerms) -> LooseMask:
    """Return the mask of a config for what clients send: they write names in their own way, whatever `masking` says."""
    return _loose(terms.ignored_keys, terms.default_ignored_keys and terms.masking != EXACT)


@lru_cache(maxsize=64)
def _loose(ignored_keys: tuple[str, ...], default_ignored_keys: bool) -> LooseMask:
    return LooseMask((*ignored_keys, *DEFAULT_KEYS) if default_ignored_keys else ignored_keys)
