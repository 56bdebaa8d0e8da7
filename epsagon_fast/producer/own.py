"""What belongs to one process and is not inherited by its forks: `process.own`."""

from collections import Counter
from weakref import ref

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.config import ResolvedConfig
from epsagon_fast.hints import TYPE_CHECKING
from epsagon_fast.queue.beacon import Page
from epsagon_fast.queue.writers import Writers
from epsagon_fast.rows import NamedTuple

from .interfaces import Flush

if TYPE_CHECKING or implementation("add_event") == COMPILED:
    # They hold what compiled code reads with each trace.
    from epsagon_fast.producer._fast_path import OwnPath, ProcessPath
else:
    OwnPath = ProcessPath = object

__all__ = ["FirstUse", "Own", "ProcessPath"]


class FirstUse(NamedTuple):
    """The options that this process's first ring has fixed."""

    runtime_dir: str
    ring_bytes: int


class Own(OwnPath):
    """The part that a forked child does not inherit."""

    def __init__(self, pid: int, writers: Writers) -> None:
        self.pid = pid
        self.writers = writers
        self.first_use: FirstUse | None = None
        # The ring sizes in the folders where this process adds to traces of others, by path.
        self.joined: dict[str, int] = {}
        # Refusals that came before there was a ring to count them in.
        self.early_refusals: Counter[str] = Counter()
        # Traces that the head has left out since a ring was told of them.
        self.left_out = 0
        # How many refusals `flush` has told of.
        self.told_refusals = 0
        # The calls of `flush` that are under way; each is told which traces close after it began. They are weak
        # references, because an exception from outside may end a call anywhere, and it would stay here for ever.
        self.flushes: dict[ref[Flush], None] = {}
        # Shows this process's forked children which traces are open in it; see beacon.py.
        self.beacons: Page | None = None
        # The config of the last trace that opened, and how its OPEN begins; see opening.py.
        self.opening: tuple[ResolvedConfig, bytes] | None = None
        # What traces need that open as the last one did; see _ext/producer/trace.pxi. None: that was unusual.
        self.footing = None
        # For exiting.py: whether its exit hooks are registered, how long they may still wait (None: as the config
        # says), and whether they have begun.
        self.is_registered = False
        self.exit_timeout_s: float | None = None
        self.is_exiting = False
        # A forked child puts its own object here.
        self.heirs: dict[str, Own] = {}
