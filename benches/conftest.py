import pathlib
import sys
from collections.abc import Iterator

import pytest

# Place, which gives a process its own collector and takes it away again.
sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))

from report import PAGES, Report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", help="write a page and its charts into this directory")
    parser.addoption("--page", choices=PAGES, default="RESULTS.md", help="the page that is written there")
    parser.addoption("--quick", action="store_true", help="a little of what takes minutes: does it work?")


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether little is to be measured, and no target judged."""
    return bool(request.config.getoption("--quick"))


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """What this run finds; printed with -s, written with --results."""
    made = Report()
    yield made
    folder = request.config.getoption("--results")
    if folder and not request.session.testsfailed:
        made.write(pathlib.Path(folder), request.config.getoption("--page"))
