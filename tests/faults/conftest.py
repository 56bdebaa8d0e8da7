"""The table of all faults, printed at the end of a run."""

import sys
from typing import Any

import pytest
import spanning
from places import FULL
from scenes import ROWS, table


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    if ROWS:
        terminalreporter.section("faults, the full counts" if FULL else "faults, a few of each")
        terminalreporter.write_line(table())
    if spanning.ROWS:
        terminalreporter.section("spans of OpenTelemetry's SDK")
        terminalreporter.write_line(spanning.table())


@pytest.fixture
def namespaced() -> list[str]:
    """The words before a script that make it process 1 of namespaces of its own, with its own /proc."""
    return ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", sys.executable]
