# cython: language_level=3, auto_pickle=False
# distutils: depends = _ext/masking/search.h _ext/masking/sift.h _ext/masking/sift_blocks.h
"""Says of an event's JSON whether a key may stand in it. `masking/search.py` has the plain way and makes the states."""

from cpython.bytes cimport PyBytes_AsString
from libc.stdint cimport uint32_t


cdef extern from "sift.h":
    enum:
        SEARCH_QUOTE
        SEARCH_FOLDING
        SIFT_SIZE
    const uint32_t SEARCH_FOUND
    bint sift_and_search(
        const unsigned char *text, size_t length, const unsigned char *classes, const uint32_t *states,
        const unsigned char *folding, const unsigned char *sieve
    ) noexcept


cdef class Search:
    """Searches for the fragments of one set of keys.

    `classes`: of the 256 bytes. `states`: rows of `width` numbers of 32 bits, one for each class of letters: where the
    next row begins. `folding`: a bit for each block of 16 characters. `sieve`: what sift.h looks for. Raises ValueError if
    one of them would lead out of the others.
    """

    cdef bytes _classes, _states, _folding, _sieve

    def __cinit__(
        self,
        bytes classes not None,
        bytes states not None,
        size_t width,
        bytes folding not None,
        bytes sieve not None,
    ):
        numbers = memoryview(states).cast("I")
        if len(classes) != 256 or width == 0 or len(numbers) % width or not numbers:
            raise ValueError("the rows are not whole")
        if any(width <= each < SEARCH_QUOTE for each in classes):
            raise ValueError("a class leads out of its row")
        if any((each >= len(numbers) or each % width) and each != SEARCH_FOUND for each in numbers):
            raise ValueError("a state leads out of the rows")
        if len(folding) != SEARCH_FOLDING:
            raise ValueError("not a bit for each block of characters")
        if len(sieve) != SIFT_SIZE:
            raise ValueError("not what is looked for first")
        self._classes, self._states, self._folding, self._sieve = classes, states, folding, sieve

    def may_hold(self, bytes event not None):
        """Return False if no key stands in an event's JSON."""
        return sift_and_search(
            <const unsigned char *>PyBytes_AsString(event),
            len(event),
            <const unsigned char *>PyBytes_AsString(self._classes),
            <const uint32_t *>PyBytes_AsString(self._states),
            <const unsigned char *>PyBytes_AsString(self._folding),
            <const unsigned char *>PyBytes_AsString(self._sieve),
        )
