import pathlib
import sys
from collections.abc import Iterator

import pytest

# Place, which gives a process its own collector and takes it away again.
sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))

from report import Report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", help="write RESULTS.md and chart.svg into this directory")


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """What this run finds; printed with -s, written with --results."""
    made = Report()
    yield made
    folder = request.config.getoption("--results")
    if folder and not request.session.testsfailed:
        made.write(pathlib.Path(folder), "make bench")
