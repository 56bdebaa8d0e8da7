"""Print the metrics of the collector of this user and version, as Prometheus reads them.

It asks no process, so the collector needs no port, and counters are there while no collector runs.
"""

import argparse

from epsagon_fast.collector.measuring.figures import view
from epsagon_fast.commands.saying import fail
from epsagon_fast.commands.status import overview

NEEDS_EXTRA = "needs the extra: pip install 'epsagon-fast[metrics]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast metrics`."""
    parser.add_argument("--openmetrics", action="store_true", help="print OpenMetrics instead of Prometheus' own text")


def run(arguments: argparse.Namespace) -> int:
    """Print them; return 1 if prometheus_client is not installed."""
    try:
        from epsagon_fast.collector.measuring.prometheus import text
    except ImportError:
        return fail("metrics", NEEDS_EXTRA)
    print(text(view(overview("metrics")), is_open=arguments.openmetrics), end="")
    return 0
