"""One Collector and one Jaeger for all tests of a process, each test with a service of its own."""

from collections.abc import Iterator

import pytest
from built import TO_FILE, Jaeger, Otelcol, running


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger that keeps its traces in memory."""
    program = Jaeger(tmp_path_factory.mktemp("jaeger"))
    with running(program):
        yield program


@pytest.fixture(scope="session")
def otelcol(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Otelcol]:
    """A Collector that writes what it takes to a file, and hands it to `jaeger`."""
    program = Otelcol(TO_FILE, tmp_path_factory.mktemp("otelcol"), JAEGER_PORT=str(jaeger.otlp_port))
    with running(program):
        yield program
