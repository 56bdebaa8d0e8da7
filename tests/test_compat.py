"""The names of the tracer `epsagon` 1.82 on this one."""

import asyncio
import logging as standard_logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from arrivals import await_traces, labels, runner
from fakes import FakeQueue
from places import Place
from waiting import TIMEOUT_S

import epsagon_fast
import epsagon_fast.compat as epsagon
from epsagon_fast.backend import Backend
from epsagon_fast.compat import options, steps
from epsagon_fast.compat.settings import settings
from epsagon_fast.integrations import choices, logging
from epsagon_fast.producer.process import process
from epsagon_fast.testing import capture_traces

# Of epsagon/__init__.py in the wheel of 1.82.0 on PyPI: `__all__` and what it assigns beside that.
NAMES = [
    "auto_load",
    "azure_wrapper",
    "chalice_wrapper",
    "disable",
    "enable",
    "error",
    "flask_wrapper",
    "gcp_wrapper",
    "get_trace_url",
    "init",
    "label",
    "lambda_wrapper",
    "measure",
    "python_wrapper",
    "step_lambda_wrapper",
    "tencent_function_wrapper",
    "warning",
]
# Of `init` in its epsagon/utils.py, in order: an old value, what it becomes here, and whether a warning says something.
ARGUMENTS: tuple[tuple[str, Any, dict[str, Any], bool], ...] = (
    ("token", "abc", {"token": "abc"}, False),
    ("app_name", "shop", {"application_name": "shop"}, False),
    ("collector_url", "http://localhost:1/x", {"collector_url": "http://localhost:1/x"}, False),
    ("metadata_only", False, {"metadata_only": False}, False),
    ("disable_timeout_send", True, {"minds_deadline": False}, False),
    ("use_ssl", False, {}, True),
    ("debug", True, {"debug": True}, False),
    ("send_trace_only_on_error", True, {"sampling": "rate=0", "sample_rate": 1.0}, False),
    ("url_patterns_to_ignore", ["example.com"], {choices.URLS: "example.com"}, False),
    ("keys_to_ignore", ["password", "user_name"], {"ignored_keys": ("password", "user_name")}, False),
    ("keys_to_allow", ["Status_Code"], {"allowed_keys": ("Status_Code",)}, True),
    ("ignored_endpoints", ["/health", "/ready"], {choices.ENDPOINTS: "/health,/ready"}, False),
    ("split_on_send", True, {}, True),
    ("propagate_lambda_id", True, {"marks_result": True}, False),
    ("logging_tracing_enabled", True, {"log_ids": True}, False),
    ("step_dict_output_path", ["a", "b"], {"steps_path": ["a", "b"]}, False),
    ("sample_rate", 0.25, {"sampling": "rate=0.25", "sample_rate": 1.0}, False),
)
# Of its README and its sources: what it reads of the environment. The same three columns.
VARIABLES: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
    ("EPSAGON_TOKEN", "abc", {"token": "abc"}, False),
    ("EPSAGON_APP_NAME", "shop", {"application_name": "shop"}, False),
    ("EPSAGON_METADATA", "FALSE", {"metadata_only": False}, False),
    ("EPSAGON_COLLECTOR_URL", "http://localhost:1/x", {"collector_url": "http://localhost:1/x"}, False),
    ("EPSAGON_IGNORED_KEYS", "a,b", {"ignored_keys": ("a", "b")}, False),
    ("EPSAGON_ALLOWED_KEYS", "a,b", {"allowed_keys": ("a", "b")}, False),
    ("EPSAGON_DEBUG", "TRUE", {"debug": True}, False),
    ("EPSAGON_SEND_TIMEOUT_SEC", "2.5", {"send_timeout_s": 2.5}, False),
    ("EPSAGON_MAX_TRACE_SIZE", "70000", {"max_trace_size_bytes": 70000}, False),
    ("EPSAGON_ENDPOINTS_TO_IGNORE", "/x", {choices.ENDPOINTS: "/x"}, False),
    ("EPSAGON_URLS_TO_IGNORE", "x.com", {choices.URLS: "x.com"}, False),
    ("EPSAGON_HTTP_ERR_CODE", "404", {choices.LOWEST_ERROR: "404"}, False),
    ("EPSAGON_DISABLE_ON_TIMEOUT", "TRUE", {"minds_deadline": False}, False),
    ("EPSAGON_PROPAGATE_LAMBDA_ID", "TRUE", {"marks_result": True}, False),
    ("EPSAGON_LOGGING_TRACING_ENABLED", "FALSE", {"log_ids": False}, False),
    ("EPSAGON_STEPS_OUTPUT_PATH", "a.b", {"steps_path": ["a", "b"]}, False),
    ("EPSAGON_SAMPLE_RATE", "0.25", {"sampling": "rate=0.25", "sample_rate": 1.0}, False),
    ("EPSAGON_SEND_TRACE_ON_ERROR", "TRUE", {"sampling": "rate=0"}, False),
    ("DISABLE_EPSAGON", "TRUE", {"disable": True}, False),
    ("EPSAGON_SSL", "TRUE", {}, False),
    *((name, "1", {}, True) for name in sorted(options.WITHOUT_MEANING)),
)


@pytest.fixture(autouse=True)
def fresh(queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.reset()
    # The process of the tests keeps its libraries as they are.
    monkeypatch.setenv("DISABLE_EPSAGON_PATCH", "TRUE")
    monkeypatch.setenv(choices.ENDPOINTS, "")
    monkeypatch.setenv(choices.URLS, "")
    yield
    settings.reset()
    logging.uninstrument()


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPSAGON_TOKEN", "EPSAGON_COLLECTOR_URL"):
        monkeypatch.delenv(name, raising=False)


def in_force(name: str) -> Any:
    """What counts now of an option of ours, of the settings of the old names, or of what is kept elsewhere."""
    if name in (choices.ENDPOINTS, choices.URLS, choices.LOWEST_ERROR):
        return os.environ[name]
    if name == "log_ids":
        return hasattr(standard_logging.getLogger().makeRecord("", 0, "", 0, "", (), None), "trace_id")
    return getattr(settings, name) if hasattr(settings, name) else getattr(process.config(), name)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "meaning" in each.getMessage()]


def test_each_name_of_the_old_tracer_is_there() -> None:
    assert sorted(epsagon.__all__) == NAMES
    assert all(callable(getattr(epsagon, name)) for name in NAMES)


def test_init_has_the_arguments_of_the_old_one_in_its_order() -> None:
    code = epsagon.init.__code__
    assert code.co_varnames[: code.co_argcount] == tuple(name for name, *_ in ARGUMENTS)


@pytest.mark.parametrize(("name", "value", "expected", "is_refused"), ARGUMENTS, ids=[each[0] for each in ARGUMENTS])
def test_each_argument_is_honoured_or_refused_by_one_warning(
    unset: None, caplog: pytest.LogCaptureFixture, name: str, value: Any, expected: dict[str, Any], is_refused: bool
) -> None:
    for _ in range(2):
        epsagon.init(**{name: value})
    assert {each: in_force(each) for each in expected} == expected
    assert [name in each for each in warned(caplog)] == [True] * is_refused


@pytest.mark.parametrize(("name", "value", "expected", "is_refused"), VARIABLES, ids=[each[0] for each in VARIABLES])
def test_each_variable_is_honoured_or_named_once(
    unset: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
    expected: dict[str, Any],
    is_refused: bool,
) -> None:
    monkeypatch.setenv(name, value)
    for _ in range(2):
        epsagon.init("other-token", "other", "http://localhost:2", keys_to_ignore=["c"])
    assert {each: in_force(each) for each in expected} == expected
    assert [name in each for each in warned(caplog)] == [True] * is_refused


def test_names_of_a_wrong_type_are_named_and_stop_no_program(caplog: pytest.LogCaptureFixture) -> None:
    wrong: Any = {"ignored_endpoints": 5, "url_patterns_to_ignore": True, "keys_to_ignore": 1.5, "keys_to_allow": 1}
    for _ in range(2):
        epsagon.init(**wrong)
    assert all(caplog.text.count(f"init({name}=...) is a list of names") == 1 for name in wrong)


def test_a_second_init_names_other_requests_and_the_environment_counts_before_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for paths in (["/a"], ["/b", "/c"]):
        epsagon.init(ignored_endpoints=paths)
        assert in_force(choices.ENDPOINTS) == ",".join(paths)
    monkeypatch.setenv(choices.ENDPOINTS, "/own")
    epsagon.init(ignored_endpoints=["/d"])
    assert in_force(choices.ENDPOINTS) == "/own"


@pytest.mark.parametrize("metadata_only", [True, False])
@pytest.mark.parametrize("mode", ["strict", "standard", "everything"])
def test_the_mode_that_the_environment_names_counts_before_code(
    unset: None, monkeypatch: pytest.MonkeyPatch, mode: str, metadata_only: bool
) -> None:
    monkeypatch.setenv("EPSAGON_PRIVACY", mode)
    epsagon.init(metadata_only=metadata_only, keys_to_allow=["plan"])
    assert (in_force("privacy"), in_force("allowed_keys")) == (mode, ("plan",))


def test_a_value_that_is_not_allowed_is_named_and_stops_no_program(caplog: pytest.LogCaptureFixture) -> None:
    epsagon.init(app_name=7, sample_rate="often", keys_to_ignore="password", metadata_only="no")  # type: ignore[arg-type]
    assert process.config().ignored_keys == ("password",)
    said = "\n".join(each.getMessage() for each in caplog.records)
    assert all(name in said for name in ("application_name=7", "sampling=", "metadata_only="))


def test_nothing_else_imports_the_old_names() -> None:
    package = Path(epsagon_fast.__file__).parent
    modules = [path.relative_to(package) for path in package.rglob("*.py") if "compat" in path.read_text()]
    # The doctor says what to do about their variables.
    assert {path.parts[:2] for path in modules if path.parts[0] != "compat"} == {("commands", "doctor")}


def test_python_wrapper_in_its_three_forms_leaves_results_and_exceptions_alone() -> None:
    @epsagon.python_wrapper
    def plain() -> int:
        return 1

    @epsagon.python_wrapper()
    def called() -> int:
        raise ValueError("theirs")

    @epsagon.python_wrapper(name="nightly")
    def named() -> int:
        epsagon.label("order", {"id": 7, "by": {"name": "x"}})
        epsagon.error(KeyError("k"))
        return measured()

    @epsagon.measure
    def measured() -> int:
        return 3

    with capture_traces() as traces:
        assert (plain(), named()) == (1, 3)
        with pytest.raises(ValueError, match="theirs"):
            called()
    assert [each.runner["resource"]["name"] for each in traces] == ["plain", "nightly", "called"]
    labels = traces[1].runner["resource"]["metadata"]["labels"]
    assert all(each in labels for each in ('"order.id":7', '"order.by.name":"x"', '"measured_duration":'))
    assert traces[1].runner["exception"]["type"] == "KeyError"


def test_measure_waits_for_a_coroutine() -> None:
    @epsagon.measure
    async def work() -> int:
        await asyncio.sleep(0)
        return 3

    with capture_traces() as traces, epsagon_fast.trace("all"):
        assert asyncio.run(work()) == 3
    assert "work_duration" in traces[0].runner["resource"]["metadata"]["labels"]


def test_a_dict_that_holds_itself_is_no_label_without_end() -> None:
    value: dict[str, Any] = {"a": 1}
    value["self"] = value
    with capture_traces() as traces, epsagon_fast.trace("all"):
        epsagon.label("key", value)
    assert '"key.a":1' in traces[0].runner["resource"]["metadata"]["labels"]


def test_warning_is_shown_and_is_no_failure() -> None:
    with capture_traces() as traces:
        with epsagon_fast.trace("warned"):
            epsagon.warning(ValueError("odd"))
        with epsagon_fast.trace("failed"):
            epsagon.error("wrong", traceback_data="line 1")
    warned, failed = (each.runner for each in traces)
    assert (warned["error_code"], warned["exception"]["message"]) == (0, "odd")
    assert warned["exception"]["additional_data"] == {"warning": "true"}
    assert (failed["error_code"], failed["exception"]["traceback"]) == (1, "line 1")


def test_disable_holds_over_init_until_enable() -> None:
    epsagon.disable()
    epsagon.init("token")
    assert process.records_nothing()
    epsagon.enable()
    assert process.config().application_name == "Application"
    assert not process.records_nothing()


def test_calls_outside_of_a_trace_do_nothing() -> None:
    epsagon.label("a", 1)
    epsagon.error("x")
    epsagon.warning("x")
    assert epsagon.get_trace_url() is None


def test_trace_url_is_that_of_the_viewers_page() -> None:
    epsagon.init(collector_url="http://127.0.0.1:1")
    with capture_traces(), epsagon_fast.trace("all") as tracer:
        assert epsagon.get_trace_url() == f"http://127.0.0.1:1/requests/{tracer.trace_id}"


@pytest.mark.parametrize("name", ["azure_wrapper", "gcp_wrapper", "tencent_function_wrapper"])
def test_wrappers_of_other_clouds_say_so_and_break_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with capture_traces() as traces:
        assert getattr(epsagon, name)(lambda event, context: event)(1, None) == 1
    assert len(traces) == 1
    assert [name in each.getMessage() for each in caplog.records] == [True]


# Lambda functions.


def context(remaining_ms: float = 3000, **more: Any) -> Any:
    return SimpleNamespace(
        function_name="charge",
        aws_request_id="r-1",
        invoked_function_arn="arn:aws:lambda:eu-west-1:123456789012:function:charge",
        get_remaining_time_in_millis=lambda: remaining_ms,
        **more,
    )


def test_lambda_wrapper_traces_a_call_and_keeps_its_result() -> None:
    result = {"statusCode": 201}
    with capture_traces() as traces:
        assert epsagon.lambda_wrapper(lambda event, context: result)({}, context()) is result
    assert result == {"statusCode": 201}
    resource = traces[0].runner["resource"]
    assert (resource["name"], resource["type"], resource["operation"]) == ("charge", "lambda", "invoke")
    expected = {"request_id": "r-1", "region": "eu-west-1", "aws_account": "123456789012", "status_code": "201"}
    assert expected.items() <= resource["metadata"].items()


def test_lambda_wrapper_hands_on_the_exception_itself() -> None:
    error = KeyError("k")

    @epsagon.lambda_wrapper
    def handler(event: Any, context: Any) -> None:
        raise error

    with capture_traces() as traces, pytest.raises(KeyError) as raised:
        handler({}, context())
    assert raised.value is error
    assert (traces[0].runner["error_code"], traces[0].runner["exception"]["type"]) == (2, "KeyError")
    assert epsagon.lambda_wrapper(handler) is handler


def test_lambda_wrapper_says_its_id_in_the_result_if_it_is_asked_to() -> None:
    epsagon.init(propagate_lambda_id=True)
    with capture_traces() as traces:
        result = epsagon.lambda_wrapper(lambda event, context: {})({}, context())
    assert result == {"_epsagon_event_id": traces[0].runner["id"]}


class Hostile:
    """A context whose every attribute fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("bad", [None, 7, Hostile(), context(float("nan"))], ids=["none", "int", "hostile", "nan"])
@pytest.mark.parametrize("wrapper", [epsagon.lambda_wrapper, epsagon.step_lambda_wrapper], ids=["plain", "step"])
def test_no_context_breaks_the_function(wrapper: Any, bad: Any) -> None:
    with capture_traces():
        assert wrapper(lambda event, context: event)(1, bad) == 1


def test_calls_of_another_form_are_only_called() -> None:
    with capture_traces() as traces:
        assert epsagon.lambda_wrapper(lambda *args, **kwargs: (args, kwargs))(1, b=2) == ((1,), {"b": 2})
    assert not traces


def test_payloads_to_ignore_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_PAYLOADS_TO_IGNORE", '[{"source": "warmup"}]')
    handler = epsagon.lambda_wrapper(lambda event, context: 1)
    with capture_traces() as traces:
        assert handler({"source": "warmup"}, context()) == handler({"source": "x"}, context()) == 1
    assert len(traces) == 1


# pytest's own timeout uses the signal, so these run in a process of their own.
LAMBDA = """
import os, signal, time
from types import SimpleNamespace
import epsagon_fast.compat as epsagon

def context(remaining_ms):
    return SimpleNamespace(function_name="charge", get_remaining_time_in_millis=lambda: remaining_ms)

@epsagon.lambda_wrapper
def handler(event, context):
    epsagon.label("order", 7)
    while signal.getitimer(signal.ITIMER_REAL)[0]:
        time.sleep(0.01)
    return event
"""


def test_what_is_there_is_sent_before_the_deadline_with_the_error_code_of_a_timeout(
    backend: Backend, place: Place
) -> None:
    program = f"""{LAMBDA}
epsagon.init()

@epsagon.lambda_wrapper
def too_slow(event, inner_context):
    handler.__wrapped__(event, inner_context)
    print("on", flush=True)
    # As the service does it.
    os.kill(os.getpid(), signal.SIGKILL)

too_slow(None, context(250))
"""
    process = place.start(program)
    out, errors = process.communicate(timeout=TIMEOUT_S)
    assert (out, process.returncode) == ("on\n", -signal.SIGKILL), errors
    trace = await_traces(backend, place, "charge")["charge"]
    assert (runner(trace)["error_code"], labels(trace)) == (3, {"order": 7})


def test_a_function_that_makes_it_after_its_trace_was_sent_returns_and_leaves_no_timer(place: Place) -> None:
    program = f"""{LAMBDA}
epsagon.init()
assert handler("made it", context(250)) == "made it"
assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
assert handler.__wrapped__("at once", context(250)) == "at once"
"""
    place.run(program)


def test_a_program_keeps_its_own_alarm_and_its_choice_to_have_no_deadline(place: Place) -> None:
    program = f"""{LAMBDA}
epsagon.init(disable_timeout_send=True)
assert handler(1, context(60_000)) == 1
epsagon.init()
signal.signal(signal.SIGALRM, print)
assert handler(2, context(60_000)) == 2
assert signal.getsignal(signal.SIGALRM) is print
"""
    place.run(program)


# Step functions.


def test_the_steps_of_a_run_share_an_id_over_their_state() -> None:
    @epsagon.step_lambda_wrapper
    def first(event: Any, context: Any) -> dict[str, Any]:
        return {"order": event["order"]}

    @epsagon.step_lambda_wrapper
    def second(event: Any, context: Any) -> dict[str, Any]:
        return {"done": True, "order": event["order"]}

    with capture_traces() as traces:
        state = first({"order": 7}, context())
        end = second(state, context())
    one, two = (each.runner for each in traces)
    ids = [each["resource"]["metadata"]["http_trace_id"] for each in (one, two)]
    assert ids[0] == ids[1] == state[steps.KEY]["id"].replace("-", "")
    assert [state[steps.KEY]["step_num"], end[steps.KEY]["step_num"]] == [0, 1]
    assert two["parent_id"] == one["id"][:16]
    assert end["order"] == 7


def test_a_run_that_the_old_tracer_began_goes_on() -> None:
    state = {"in": {"Epsagon": {"id": "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", "step_num": 4}}}
    with capture_traces() as traces:
        result = epsagon.step_lambda_wrapper(lambda event, context: {"in": {"x": 1}})(state, context())
    assert result["in"]["Epsagon"]["step_num"] == 5
    assert traces[0].runner["resource"]["metadata"]["http_trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("data", [{}, {"id": 7}, {"id": "x", "step_num": "y"}], ids=str)
def test_a_state_that_cannot_be_read_begins_a_run(data: Any) -> None:
    with capture_traces():
        result = epsagon.step_lambda_wrapper(lambda event, context: {})({"Epsagon": data}, context())
    assert result["Epsagon"]["step_num"] == 0


def test_steps_write_where_they_are_told_to() -> None:
    epsagon.init(step_dict_output_path=["a", "b"])
    with capture_traces():
        handler = epsagon.step_lambda_wrapper(lambda event, context: event)
        assert "Epsagon" in handler({"a": {"b": {}}}, context())["a"]["b"]
        assert "Epsagon" in handler({"a": 1}, context())


def test_a_state_without_end_is_looked_at_for_a_bounded_time() -> None:
    state: list[Any] = []
    state.append(state)
    assert steps.found(state) is None


def test_a_chalice_application_is_called_in_a_trace_and_keeps_its_attributes() -> None:
    class App:
        name = "hello"

        def __call__(self, event: Any, context: Any) -> str:
            return "called"

    own = App()
    app = epsagon.chalice_wrapper(own)
    app.debug = True
    with capture_traces() as traces:
        assert (app.name, own.debug, app({}, context())) == ("hello", True, "called")  # type: ignore[attr-defined]
    assert len(traces) == 1


# Frameworks.


def test_flask_wrapper_traces_requests_once_and_leaves_out_what_is_ignored() -> None:
    app = flask.Flask("shop")
    app.add_url_rule("/orders", "orders", lambda: "[]")
    app.add_url_rule("/health", "health", lambda: "ok")
    assert epsagon.flask_wrapper(app, ["/health"]) is epsagon.flask_wrapper(app) is app
    with capture_traces() as traces:
        client = app.test_client()
        assert (client.get("/orders").text, client.get("/health").text) == ("[]", "ok")
    assert [each.runner["resource"]["metadata"]["path"] for each in traces] == ["/orders"]


def test_django_middleware_traces_a_request_and_hands_on_djangos_answer() -> None:
    from epsagon_fast.compat.wrappers.django import DjangoMiddleware

    class Response(dict[str, str]):
        status_code, reason_phrase, streaming, content = 404, "Not Found", False, b"none"

    answer = Response({"Content-Type": "text/plain"})
    request = SimpleNamespace(
        environ={"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "SERVER_NAME": "shop", "SERVER_PORT": "80"}
    )
    with capture_traces() as traces:
        assert DjangoMiddleware(lambda request: answer)(request) is answer
        assert DjangoMiddleware(lambda request: request)(7) == 7
    metadata = traces[0].runner["resource"]["metadata"]
    assert (metadata["path"], metadata["status_code"]) == ("/x", "404")


# Programs as people wrote them.


def test_flask_application_that_only_calls_init_is_traced(backend: Backend, place: Place) -> None:
    """As with the old tracer, whichever is imported first."""
    program = """
import epsagon_fast.compat as epsagon
epsagon.init(token="abc", app_name="shop", metadata_only=False, ignored_endpoints=["/health"])
from flask import Flask

app = Flask(__name__)

@app.route("/health")
def health():
    return "ok"

@app.route("/orders")
def orders():
    epsagon.label("page", 1)
    print(epsagon.get_trace_url())
    return "[]"

client = app.test_client()
client.get("/health"), client.get("/orders")
"""
    page = place.run(program, env={"DISABLE_EPSAGON_PATCH": ""}).strip()
    trace = await_traces(backend, place, "localhost")["localhost"]
    assert runner(trace)["resource"]["metadata"]["path"] == "/orders"
    assert page.startswith(f"{backend.url}/requests/")


def test_handler_that_the_environment_names_is_called_in_a_trace(place: Place) -> None:
    (place.scratch / "their_module.py").write_text("def handler(event, context):\n    return event + 1\n")
    program = "import epsagon_fast.compat as epsagon; assert epsagon.wrapper(1, None) == 2"
    place.run(program, env={"EPSAGON_HANDLER": "their_module.handler"})
