"""One call of each library, in unchanged applications: what we show, and what OpenTelemetry's SDK shows of the same.

docs/instrumentations.md is made here: `WRITE=1 make instrumentations`.
"""

import ast
import os
import pathlib
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import requires
from typing import NamedTuple

import pytest
from places import Place, until
from programs_below import INSTRUMENT, PROGRAMS, RUN, Program, shop
from servers import Server
from services import Services, services
from spans import OURS, Seen, our_events, sdk_spans, unmatched

from epsagon_fast.backend import running

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "instrumentations.md"
OTLP = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    # The spans of a process that is killed would be lost.
    "OTEL_BSP_SCHEDULE_DELAY": "50",
}


def decorated(module: str, by: str) -> list[str]:
    """Return the calls that a program's module has in one of its tables. It is not imported: it needs the services."""
    tree = ast.parse((PROGRAMS / f"{module}.py").read_text())
    functions = [each for each in tree.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [each.name.removesuffix("_") for each in functions if by in map(ast.unparse, each.decorator_list)]


# Three programs start, twice, and the services.
pytestmark = pytest.mark.timeout(400)
IN_FLASK = [*decorated("calls", "sync"), "django", "celery"]
IN_FASTAPI = decorated("calls", "awaited")
CALLS = [*IN_FLASK, *IN_FASTAPI]
TO_THE_BROKER = {"PING", "LLEN LLEN LLEN LLEN", "SADD SADD", "LPUSH"}


class Outcome(NamedTuple):
    """What was seen in both runs, by the name of the call. In ours: the `traceparent` that went out, and the log."""

    ours: dict[str, list[Seen]]
    sdks: dict[str, list[Seen]]
    told: dict[str, str]
    ids: dict[str, str]
    log: str


@pytest.fixture(scope="module")
def parts() -> Iterator[Services]:
    with services() as found:
        yield found


@pytest.fixture(scope="module")
def outcome(parts: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    ids = {name: secrets.token_hex(16) for name in CALLS}
    with ExitStack() as stack:
        backend = stack.enter_context(running())
        place = Place(backend.url)
        stack.callback(place.close)
        env = {**place.env, **parts.environment, "AWS_EC2_METADATA_DISABLED": "true"}
        scratch = tmp_path_factory.mktemp("ours")
        with shop(RUN, {**env, "LOG_FORMAT": "%(message)s %(http_trace_id)s"}, scratch) as programs:
            ask(programs, ids)
            until(lambda: all_arrived(our_events(backend), ids), lambda: f"{our_events(backend)} {place.log()}")
        seen = our_events(backend)
        parts.take_stock()
        told = {name: headers.get("traceparent", "") for name, headers in parts.told.items()}
        other = Server()
        stack.callback(other.close)
        plain = {name: value for name, value in env.items() if "EPSAGON" not in name}
        plain |= OTLP | {"OTEL_EXPORTER_OTLP_ENDPOINT": other.url}
        with shop(INSTRUMENT, plain, tmp_path_factory.mktemp("sdk")) as programs:
            ask(programs, ids)
            until(lambda: all_arrived(sdk_spans(other), ids), lambda: str(sdk_spans(other)))
        shown = sdk_spans(other)
        yield Outcome(
            {name: seen[number] for name, number in ids.items()},
            {name: shown[number] for name, number in ids.items()},
            told,
            ids,
            (scratch / "flask").read_text(),
        )


def ask(programs: tuple[Program, Program], ids: dict[str, str]) -> None:
    flask, fastapi = programs
    for name, number in ids.items():
        program = flask if name in IN_FLASK else fastapi
        headers = {"traceparent": f"00-{number}-{secrets.token_hex(8)}-01"}
        assert program.ask(f"/call/{name}", headers).strip('"') == name


def all_arrived(found: dict[str, list[Seen]], ids: dict[str, str]) -> bool:
    """Say whether all requests have arrived, and the task's run."""
    ran = any(each.by == "celery" or each.name.startswith("run/") for each in found.get(ids["celery"], ()))
    return found.keys() >= {*ids.values()} and ran


@pytest.mark.parametrize("name", CALLS)
def test_each_span_of_the_sdk_is_an_event_of_ours_and_none_comes_twice(name: str, outcome: Outcome) -> None:
    missing, more = unmatched(outcome.sdks.get(name, ()), outcome.ours.get(name, ()))
    # Ours has one event for a message, with what celery asks of its broker in it.
    assert ([span for span in missing if name != "celery" or span.name not in TO_THE_BROKER], more) == ([], [])


@pytest.mark.parametrize("name", CALLS)
def test_call_that_leaves_the_process_with_a_header_names_its_event(name: str, outcome: Outcome) -> None:
    header = outcome.told.get(name)
    if header:
        _, trace_id, parent_id, _ = header.split("-")
        assert trace_id == outcome.ids[name]
        assert parent_id in {event.id for event in outcome.ours[name]}


def test_line_of_the_log_names_its_request(outcome: Outcome) -> None:
    assert f"a line of the log {outcome.ids['logging']}" in outcome.log.splitlines()


def test_page_has_a_row_for_each_library(outcome: Outcome) -> None:
    table = "\n".join(row(name, outcome) for name in CALLS)
    if os.environ.get("WRITE"):
        text = PAGE.read_text()
        head, _, rest = text.partition("| call |")
        lines = rest.splitlines()
        after = next((place for place, line in enumerate(lines) if place and not line.startswith("|")), len(lines))
        new = f"{head}| call |{lines[0]}\n{lines[1]}\n{table}\n" + "\n".join(lines[after:])
        PAGE.write_text(new.rstrip("\n") + "\n")
    # What others call their attributes changes with their versions.
    assert {line.split("|")[1].strip(" `") for line in PAGE.read_text().splitlines() if line.startswith("| `")} == {
        *CALLS
    }


def row(name: str, outcome: Outcome) -> str:
    events = outcome.ours.get(name, [])
    shown = ", ".join(dict.fromkeys(map(label, events))) or "its line has the ids"
    attributes = ", ".join(sorted({each for event in events for each in event.attributes if not is_told_anyway(each)}))
    out = "yes" if outcome.told.get(name) or name == "celery" else ""
    spans = ", ".join(dict.fromkeys(f"`{span.name}`" for span in outcome.sdks.get(name, ())))
    return f"| `{name}` | {len(events) or ''} | {shown} | {attributes} | {out} | {spans} |"


def label(event: Seen) -> str:
    by = "ours" if event.by in OURS else event.by.removeprefix("opentelemetry.instrumentation.")
    return " ".join(filter(None, (f"`{event.name}`", event.operation, f"({by})")))


def is_told_anyway(name: str) -> bool:
    return name.startswith(("otel.scope", "span.kind")) or name in ("http_trace_id", "is_trimmed")


def test_the_extra_brings_nothing_of_the_sdk() -> None:
    needed, looked = {"epsagon-fast[auto]"}, set()
    while needed:
        one = needed.pop()
        looked.add(one)
        name, _, extra = one.partition("[")
        for line in requires(name) or ():
            requirement, _, marker = line.partition(";")
            if not marker or (extra and f'"{extra.strip("]")}"' in marker.replace("'", '"')):
                needed |= {re.match(r"[\w.-]+(\[\w+\])?", requirement.strip())[0]} - looked  # type: ignore[index]
    assert "opentelemetry-api" in looked and "opentelemetry-instrumentation-redis" in looked
    assert not {name for name in looked if "sdk" in name or "exporter" in name}
