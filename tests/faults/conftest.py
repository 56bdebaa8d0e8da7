"""The table of all faults, printed at the end of a run."""

from typing import Any

from scenes import FULL, ROWS, table


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    if ROWS:
        terminalreporter.section("faults, the full counts" if FULL else "faults, a few of each")
        terminalreporter.write_line(table())
