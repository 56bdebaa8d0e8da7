"""Span ids: of events and, as the first half of its trace id, of each trace's runner.

They come from a generator that asks the kernel for a seed once in each process. A call of the kernel costs as much as
all else about an event. The second half of a trace id is `kernel_bytes`, as of os.urandom. The compiled function keeps
the interpreter's lock meanwhile: os.urandom gives it up, and beside threads that compute a trace then opens late.
"""

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Final
from epsagon_fast.patterns import pattern

__all__ = ["SPAN_ID", "SPAN_ID_BYTES", "SPAN_ID_DIGITS", "kernel_bytes", "span_id"]

SPAN_ID_BYTES: Final = 8
SPAN_ID_DIGITS: Final = 2 * SPAN_ID_BYTES
# As W3C Trace Context has them.
SPAN_ID: Final = pattern(rf"(?!0+\Z)[0-9a-f]{{{SPAN_ID_DIGITS}}}")

if TYPE_CHECKING or implementation("add_event") == COMPILED:
    from epsagon_fast.producer._fast_path import kernel_bytes, span_id
else:
    from os import urandom as kernel_bytes

    from epsagon_fast.producer.pure_ids import pure_span_id as span_id
