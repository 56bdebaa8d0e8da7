"""Runs in the collector process: reads the rings, assembles traces, delivers them."""

import sys

# As in the package's own __init__.py: this process was started to be a collector and is nothing else.
if "epsagon_fast_collector" in getattr(sys, "_xoptions", ()):
    from epsagon_fast.collector.spared import spare

    spare()
