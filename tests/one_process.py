"""A plugin for pytest that leaves out what starts programs of its own, and takes seconds: `-p one_process`.

For runs that do much more than the tests say: with each mutant of a module, or while coverage is measured.
"""

from typing import Any

# Fixtures and modules of tests with real processes.
PLACES = {"place", "shop", "far", "driver", "namespaced"}
FOLDERS = ("tests/faults/", "tests/answers/", "tests/collectors/")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Take those tests only that stay in this process."""
    items[:] = [each for each in items if not PLACES & {*each.fixturenames} and not each.nodeid.startswith(FOLDERS)]
