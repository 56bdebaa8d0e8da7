# cython: language_level=3, auto_pickle=False
# distutils: depends = _ext/masking/search.h
"""Says of an event's JSON whether a key may stand in it. `masking/search.py` has the plain way and makes the states."""

from cpython.bytes cimport PyBytes_AsString
from libc.stdint cimport uint16_t


cdef extern from "search.h":
    enum:
        SEARCH_QUOTE
        SEARCH_FOUND
    bint search_event(
        const unsigned char *text, size_t length, const unsigned char *classes, const uint16_t *states, size_t width
    ) noexcept


cdef class Search:
    """Searches for the fragments of one set of keys.

    `classes`: of the 256 bytes. `states`: rows of `width` numbers of 16 bits, one for each class of letters. Raises
    ValueError if a class or a state would lead out of the rows.
    """

    cdef bytes _classes, _states
    cdef size_t _width

    def __cinit__(self, bytes classes not None, bytes states not None, size_t width):
        numbers = memoryview(states).cast("H")
        if len(classes) != 256 or width == 0 or len(numbers) % width or not numbers:
            raise ValueError("the rows are not whole")
        if any(width <= each < SEARCH_QUOTE for each in classes):
            raise ValueError("a class leads out of its row")
        if any(len(numbers) // width <= each != SEARCH_FOUND for each in numbers):
            raise ValueError("a state leads out of the rows")
        self._classes, self._states, self._width = classes, states, width

    def may_hold(self, bytes event not None):
        """Return False if no key stands in an event's JSON."""
        return search_event(
            <const unsigned char *>PyBytes_AsString(event),
            len(event),
            <const unsigned char *>PyBytes_AsString(self._classes),
            <const uint16_t *>PyBytes_AsString(self._states),
            self._width,
        )
