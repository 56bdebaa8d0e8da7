"""The Python page of the docs shows what is public, all of it and no more. `make docs` holds that the site does."""

import ast
import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import pytest

import epsagon_fast
from epsagon_fast.producer import event, fast_path, scope

ROOT = Path(__file__).parents[1]
# The public names: what is not here may change with any version.
PUBLIC = {
    "epsagon_fast": """
        init trace event label error flush aflush shutdown bind current_ids Ids attach Handle
        add_event add_exception add_exception_type_and_message add_label add_error get_lambda_timeout_threshold_ms
        create_tracer create_global_tracer global_tracer global_tracer_config stop_global_tracer
        Config Config.resolve
        ErrorCode ErrorCode.OK ErrorCode.ERROR ErrorCode.EXCEPTION ErrorCode.TIMEOUT
        Outcome Outcome.DELIVERED Outcome.STORED Outcome.REJECTED Outcome.DROPPED Outcome.PENDING Outcome.DISABLED
        Outcome.SAMPLED Outcome.reason
        Tracer Tracer.config Tracer.trace_id Tracer.handle Tracer.start Tracer.running Tracer.stopped
        Tracer.send_stop_signal Tracer.stop Tracer.astop Tracer.runner_event Tracer.set_runner_metadata
        Tracer.add_event Tracer.add_exception Tracer.add_exception_type_and_message Tracer.add_label Tracer.add_error
    """,
    # Where a block's event is defined.
    "epsagon_fast.producer.event": """
        Event Event.id Event.parent_id Event.name Event.type Event.operation Event.origin Event.metadata
        Event.start_time Event.duration Event.error_code
    """,
    "epsagon_fast.propagation": "extract inject continue_context TraceContext TraceContext.traceparent",
    "epsagon_fast.testing": "capture_traces reset Trace Trace.runner Trace.tree Node Node.name Node.find",
    "epsagon_fast.trimming": """
        IMPLEMENTATION trim Trimmed Trimmed.events Trimmed.size_bytes Trimmed.stripped_count
        shorten Shortened Shortened.events Shortened.size_bytes Shortened.level_bytes Shortened.shortened_count
        Shortened.stripped_count TraceTooBig TraceTooBig.size_bytes
    """,
    "epsagon_fast.protocol": "STRONG_KEYS",
    "epsagon_fast.backend": "running Backend Backend.url Backend.store Backend.stop",
    "epsagon_fast.integrations.celery": "instrument uninstrument",
    "epsagon_fast.integrations.wsgi": "TracingMiddleware",
    "epsagon_fast.integrations.asgi": "TracingMiddleware",
    "epsagon_fast.integrations.urllib3": "instrument uninstrument",
    "epsagon_fast.integrations.threading": "instrument uninstrument",
    "epsagon_fast.integrations.logging": "instrument uninstrument",
    "epsagon_fast.integrations.structlog": "add_ids",
    "epsagon_fast.integrations.opentelemetry": "install EpsagonSpanProcessor",
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names.split()]
# Its class in plain Python does not show its attributes.
AN_EVENT = event.Event("", "", "", "")
# Attributes that objects get when they are made: no class shows them.
OF_OBJECTS = {"reason", "trace_id", "config", "size_bytes", "url", "store"}


def shown() -> set[str]:
    """Return the full names to which the page gives an entry."""
    found = set()
    page = (ROOT / "docs/reference.md").read_text()
    for name, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", page, re.MULTILINE):
        members = re.search(r"members: \[(.*)\]", options)
        found |= {name, *(f"{name}.{each}" for each in (members[1].split(", ") if members else ()))}
    return found


def named(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    for part in name.split("."):
        found = AN_EVENT if found is event.Event else found
        found = getattr(found, part)
    return found


def test_each_public_name_is_on_the_page_or_in_the_text_of_its_class() -> None:
    def told(module: str, name: str) -> bool:
        owner, _, member = name.rpartition(".")
        text = (named(module, owner).__doc__ or "") if owner else ""
        if module == event.__name__:
            text = event.PureEvent.__doc__ or ""
        return f"{module}.{name}" in page or bool(owner and re.search(rf"\b{member}\b", text))

    page = shown()
    assert [f"{module}.{name}" for module, name in NAMES if not told(module, name)] == []


def test_nothing_else_is_on_the_page() -> None:
    assert shown() - {f"{module}.{name}" for module, name in NAMES} == set()


def test_each_public_name_is_there() -> None:
    for module, name in NAMES:
        if name.rpartition(".")[2] not in OF_OBJECTS:
            named(module, name)


def test_types_of_public_functions_are_those_that_others_know() -> None:
    # Programs that check or document calls ask for them.
    for module, name in NAMES:
        if name.rpartition(".")[2] not in OF_OBJECTS and inspect.isroutine(found := named(module, name)):
            assert "Hint" not in str(typing.get_type_hints(found)), name


def test_what_the_package_says_is_public_is_that() -> None:
    plain = {name for module, name in NAMES if module == "epsagon_fast" and "." not in name}
    assert {*epsagon_fast.__all__} - {"__version__"} == plain


@pytest.mark.parametrize(
    ("name", "pure"),
    [
        ("event", scope.pure_event),
        ("Event", event.PureEvent),
        ("FastPath.add_event", fast_path.PureFastPath.add_event),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_stub_of_which_the_page_is_made_says_what_the_code_says(name: str, pure: Any) -> None:
    node: Any = ast.parse((ROOT / "epsagon_fast/producer/_fast_path.pyi").read_text())
    for part in name.split("."):
        node = next(each for each in node.body if getattr(each, "name", "") == part)
    said = ast.get_docstring(node)
    assert said == inspect.getdoc(pure)
