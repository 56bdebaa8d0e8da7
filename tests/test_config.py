"""Where each field of a Config comes from, and what is refused."""

import dataclasses
import inspect
import logging
import math
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from waiting import TIMEOUT_S

import epsagon_fast as epsagon
from epsagon_fast.config import OPTIONS, Config, ResolvedConfig
from epsagon_fast.log import forget_warnings
from epsagon_fast.pages import see
from epsagon_fast.queue import folder as folders

SECRET = "11111111-2222-3333-4444-555555555555"


class Field(NamedTuple):
    name: str
    variable: str | None
    default: Any
    # What code says and what is kept of it.
    code: Any
    kept: Any
    # What the environment says and what is read from it.
    text: str
    read: Any
    of_wrong_type: list[Any]
    refused: list[Any]
    refused_texts: list[str]


FIELDS = [
    Field("application_name", "EPSAGON_APP_NAME", "", "shop", "shop", "кафе", "кафе", [1, b"x"], ["\ud800", "a\0"], []),
    Field("token", "EPSAGON_TOKEN", "", "t1", "t1", "t2", "t2", [1], ["a b", "a\n", "é"], ["t\n", "t t"]),
    Field(
        "collector_url",
        "EPSAGON_COLLECTOR_URL",
        "https://us-east-1.tc.epsagon.com",
        "http://127.0.0.1:8686",
        "http://127.0.0.1:8686",
        "https://[::1]:443/in?a=b",
        "https://[::1]:443/in?a=b",
        [1, b"http://h"],
        [
            "",
            "backend",
            "ftp://h",
            "http://",
            "http://h:99999",
            "http://h ost",
            "http://h:x",
            "http://u:p@h",
            "http://h\n",
        ],
        ["backend", "http:/h", "https://u@h"],
    ),
    Field(
        "headers",
        "EPSAGON_HEADERS",
        (),
        {"api-key": SECRET},
        (("api-key", SECRET),),
        "a=b%20c, d=",
        (("a", "b c"), ("d", "")),
        [SECRET, 1, [("a", SECRET)]],
        [{"a b": SECRET}, {"a": f"{SECRET}\n"}, {"a": 1}, {"Content-Length": "1"}, {"": SECRET}],
        [SECRET, f"a={SECRET}%0d%0ab", "=x"],
    ),
    Field(
        "resource_attributes",
        None,
        (),
        {"team": "shop", "rack": 7},
        (("team", "shop"), ("rack", 7)),
        "",
        None,
        ["team=shop", 1],
        [{"": "x"}, {"a": [1]}, {"a": 2**63}, {"a": math.nan}, {"a": None}, {1: "x"}],
        [],
    ),
    Field("metadata_only", "EPSAGON_METADATA", True, False, False, "FALSE", False, [0, "true"], [], ["maybe", "2"]),
    Field(
        "privacy", "EPSAGON_PRIVACY", "standard", "strict", "strict", "Strict", "strict", [1], ["x", "STRICT"], ["x"]
    ),
    Field("allowed_keys", "EPSAGON_ALLOWED_KEYS", (), ["a", "b*"], ("a", "b*"), "a, b", ("a", "b"), ["a", 1], [], []),
    Field(
        *("allowed_exceptions", "EPSAGON_ALLOWED_EXCEPTIONS", (), {"KeyError"}, ("KeyError",)),
        *("KeyError", ("KeyError",), ["a", 1], [], []),
    ),
    Field("before_send", None, None, dict, dict, "", None, [], ["x", 1], []),
    Field("debug", "EPSAGON_DEBUG", False, True, True, "yes", True, [1, "true"], [], ["maybe"]),
    Field(
        "send_timeout_s",
        "EPSAGON_SEND_TIMEOUT_SEC",
        1.0,
        5,
        5.0,
        "250ms",
        0.25,
        ["5", True],
        [0, -1, float("nan"), float("inf"), 1e9],
        ["0", "-1", "5m", "nan", "1_0", "1e3", "ms", "٥", "9" * 400],
    ),
    Field("disable", "DISABLE_EPSAGON", False, True, True, "On", True, [1, "true"], [], ["maybe"]),
    Field("test_mode", None, False, True, True, "", None, [1, "true"], [], []),
    Field(
        "ignored_keys",
        "EPSAGON_IGNORED_KEYS",
        (),
        ["password", "cvv"],
        ("password", "cvv"),
        " password ,,Cvv",
        ("password", "Cvv"),
        ["password", b"password", {"password": 1}, 1, [1], [b"x"]],
        [["\udfff"]],
        [],
    ),
    Field(
        "default_ignored_keys",
        "EPSAGON_DEFAULT_IGNORED_KEYS",
        True,
        False,
        False,
        "off",
        False,
        ["false", 0],
        [],
        ["maybe"],
    ),
    Field(
        "masking",
        "EPSAGON_MASKING",
        "loose",
        "exact",
        "exact",
        "Exact",
        "exact",
        [1],
        ["none", ""],
        ["none", "exactly"],
    ),
    Field(
        "max_trace_size_bytes",
        "EPSAGON_MAX_TRACE_SIZE",
        65536,
        524288,
        524288,
        "+1000",
        1000,
        ["1000", 1000.0, True],
        [0, -1, 524289],
        ["0", "-1", "524289", "1e3", "64K", "١٢", " 1000", "9" * 5000],
    ),
    Field(
        "trimming",
        "EPSAGON_TRIMMING",
        "strip",
        "shorten",
        "shorten",
        "Shorten",
        "shorten",
        [1],
        ["", "Shorten"],
        ["cut"],
    ),
    Field(
        "sampling",
        "EPSAGON_SAMPLING",
        "",
        " rate=1%, slower=2s ",
        "rate=1%, slower=2s",
        "budget=50/s,least = 5/min",
        "budget=50/s,least = 5/min",
        [1, ["rate=1"]],
        ["rate", "rate=2", "slower=1s", "rate=1,rate=1", "rate=1,", "rat=1", "rate=1\n2"],
        ["rate=200%", "rate=1;least=1", "budget=0", "rate=1,least=0", "rate=1,errors=no", "rate=1,slower=never"],
    ),
    Field(
        "sample_rate", "EPSAGON_SAMPLE_RATE", 1.0, 0, 0.0, "2.5%", 0.025, ["1", True], [-0.1, 1.1], ["2", "-1", "1e3"]
    ),
    Field("runtime_dir", "EPSAGON_RUNTIME_DIR", "", "/run/x/", "/run/x", "/run/y", "/run/y", [1, b"/x"], ["/\0"], []),
    Field(
        "state_dir",
        "EPSAGON_STATE_DIR",
        "/home/me/.local/state/epsagon-fast",
        Path("/var/x"),
        "/var/x",
        "/var/y",
        "/var/y",
        [1, b"/x"],
        ["/\udc80"],
        ["/\udc80"],
    ),
    Field(
        "ring_bytes",
        "EPSAGON_RING_BYTES",
        524288,
        1048576,
        1048576,
        "2097152",
        2097152,
        ["1", 1.5, True],
        [0, 65535, 2**31],
        ["65535", "1M"],
    ),
    Field(
        "shutdown_timeout_s", "EPSAGON_SHUTDOWN_TIMEOUT_SEC", 2.0, 0, 0.0, "1.5s", 1.5, ["2", True], [-1], ["-1", "2m"]
    ),
]
IN_ENVIRONMENT = [field for field in FIELDS if field.variable]


def of(field: Field) -> str:
    return field.name


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment that a Config reads is set, and no warning was given yet."""
    for variable in [field.variable for field in IN_ENVIRONMENT] + ["AWS_REGION", "XDG_STATE_HOME"]:
        monkeypatch.delenv(str(variable), raising=False)
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy") or variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", "/home/me")
    forget_warnings()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The texts of our warnings, read when the test looks."""

    class Texts(list[str]):
        def __iter__(self) -> Iterator[str]:
            return iter([record.getMessage() for record in caplog.records if record.name == "epsagon_fast"])

    with caplog.at_level(logging.WARNING, "epsagon_fast"):
        yield Texts()


def with_token(**fields: Any) -> Config:
    return Config(**{"token": SECRET, "collector_url": "http://127.0.0.1:1", **fields})


def test_the_table_below_names_every_field() -> None:
    assert [field.name for field in FIELDS] == [field.name for field in dataclasses.fields(Config)]


@pytest.mark.parametrize("field", FIELDS, ids=of)
def test_an_unset_field_is_none_and_resolves_to_its_default(field: Field) -> None:
    assert getattr(Config(), field.name) is None
    assert getattr(Config().resolve(), field.name) == field.default


@pytest.mark.parametrize("field", FIELDS, ids=of)
def test_code_sets_a_field(field: Field) -> None:
    resolved = Config(**{field.name: field.code}).resolve()
    assert getattr(resolved, field.name) == field.kept
    assert type(getattr(resolved, field.name)) is type(field.kept)


@pytest.mark.parametrize("field", IN_ENVIRONMENT, ids=of)
def test_the_environment_sets_a_field_that_code_leaves_open(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(str(field.variable), field.text)
    assert getattr(Config().resolve(), field.name) == field.read


@pytest.mark.parametrize("field", IN_ENVIRONMENT, ids=of)
def test_code_wins_over_the_environment(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows size-config, timeout-units and metadata-env: there the environment won, or a valid value was lost."""
    monkeypatch.setenv(str(field.variable), field.text)
    assert getattr(Config(**{field.name: field.code}).resolve(), field.name) == field.kept


@pytest.mark.parametrize("field", IN_ENVIRONMENT, ids=of)
def test_an_empty_variable_is_an_unset_one(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(str(field.variable), "")
    assert getattr(Config().resolve(), field.name) == field.default


@pytest.mark.parametrize(("field", "value"), [(f, v) for f in FIELDS for v in f.of_wrong_type], ids=repr)
def test_a_wrong_type_in_code_is_a_type_error_that_says_what_is_allowed(field: Field, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{field.name}=.*: {field.name} must be "):
        Config(**{field.name: value})


@pytest.mark.parametrize(("field", "value"), [(f, v) for f in FIELDS for v in f.refused], ids=repr)
def test_a_wrong_value_in_code_is_a_value_error_that_says_what_is_allowed(field: Field, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field.name}=.*: {field.name} must be "):
        Config(**{field.name: value})


@pytest.mark.parametrize(("field", "text"), [(f, t) for f in FIELDS for t in f.refused_texts], ids=repr)
def test_a_wrong_variable_is_ignored_with_one_warning(
    field: Field, text: str, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    """Row size-config: an invalid size in the environment gives one warning and the default."""
    monkeypatch.setenv(str(field.variable), text)
    configs = [Config().resolve() for _ in range(2)]
    assert [getattr(config, field.name) for config in configs] == [field.default] * 2
    named = [warning for warning in warnings if warning.startswith(f"{field.variable}=")]
    assert len(named) == 1
    assert "is ignored: it must be" in named[0]


@pytest.mark.parametrize("text", ["TRUE", "1", "YES", "ON", "true", "On"])
def test_a_bool_of_the_environment_can_be_written_in_four_ways_to_be_true(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPSAGON_DEBUG", text)
    assert Config().resolve().debug is True


@pytest.mark.parametrize("text", ["FALSE", "0", "NO", "OFF", "false", "Off"])
def test_a_bool_of_the_environment_can_be_written_in_four_ways_to_be_false(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPSAGON_METADATA", text)
    assert Config().resolve().metadata_only is False


def test_the_environment_turns_metadata_only_on_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row metadata-env: epsagon-go could only turn it off."""
    monkeypatch.setenv("EPSAGON_METADATA", "TRUE")
    assert Config().resolve().metadata_only is True
    assert Config(metadata_only=False).resolve().metadata_only is False


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("1.5s", 1.5), ("250ms", 0.25), (".5", 0.5), ("2.", 2.0)])
def test_a_timeout_in_the_environment_is_seconds_or_has_a_unit(
    text: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row timeout-units: epsagon-go took `5` for an error, so for one second."""
    monkeypatch.setenv("EPSAGON_SEND_TIMEOUT_SEC", text)
    assert Config().resolve().send_timeout_s == seconds


def test_a_ring_holds_at_least_four_traces() -> None:
    assert Config(max_trace_size_bytes=524288).resolve().ring_bytes == 4 * 524288
    assert Config(max_trace_size_bytes=16384, ring_bytes=65536).resolve().ring_bytes == 65536


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Config(state_dir="state").resolve().state_dir == str(tmp_path / "state")
    assert Config(runtime_dir="").resolve().runtime_dir == ""


def test_a_relative_path_survives_that_the_working_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("EPSAGON_STATE_DIR", "state")
    assert Config().resolve().state_dir == "state"


def test_the_state_directory_follows_xdg_and_is_empty_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert Config().resolve().state_dir == "/xdg/epsagon-fast"
    # The XDG specification: relative paths are ignored.
    monkeypatch.setenv("XDG_STATE_HOME", "xdg")
    assert Config().resolve().state_dir == "/home/me/.local/state/epsagon-fast"
    monkeypatch.setenv("HOME", "nowhere")
    assert Config().resolve().state_dir == ""


def test_the_region_names_the_default_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert Config().resolve().collector_url == "https://eu-west-1.tc.epsagon.com"


def test_a_region_that_would_change_the_host_is_ignored(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    monkeypatch.setenv("AWS_REGION", "evil.example/")
    assert Config().resolve().collector_url == "https://us-east-1.tc.epsagon.com"
    assert sum("AWS_REGION" in warning for warning in warnings) == 1


def test_the_default_url_is_warned_of_once_and_only_if_traces_would_go_there(warnings: list[str]) -> None:
    """Row default-url."""
    Config(disable=True, token=SECRET).resolve()
    Config(test_mode=True, token=SECRET).resolve()
    with_token().resolve()
    assert list(warnings) == []
    for _ in range(2):
        Config(token=SECRET).resolve()
    (warning,) = warnings
    assert "closed" in warning
    assert "EPSAGON_COLLECTOR_URL" in warning


def test_an_empty_token_disables_and_is_warned_of_once(warnings: list[str]) -> None:
    """Row disabled-free: without a token there is nothing to do."""
    for _ in range(2):
        assert Config(token="").resolve().enabled is False
    (warning,) = warnings
    assert "EPSAGON_TOKEN" in warning


def test_disable_disables_without_a_warning(warnings: list[str]) -> None:
    assert Config(disable=True).resolve().enabled is False
    assert with_token(disable=True).resolve().enabled is False
    assert with_token().resolve().enabled is True
    assert list(warnings) == []


def test_many_threads_give_one_warning(warnings: list[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: Config().resolve(), range(200)))
    assert len(list(warnings)) == 1


def test_a_token_is_in_no_repr_error_or_warning(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    config = with_token()
    assert SECRET not in repr(config) + str(config) + repr(config.resolve()) + f"{config}"
    with pytest.raises(ValueError) as refused:
        Config(token=SECRET + "\n")
    with pytest.raises(TypeError) as mistaken:
        Config(token=SECRET.encode())  # type: ignore[arg-type]
    with pytest.raises(ValueError) as located:
        Config(collector_url=f"https://me:{SECRET}@host")
    monkeypatch.setenv("EPSAGON_TOKEN", SECRET + "\n")
    Config().resolve()
    said = [str(refused.value), str(mistaken.value), str(located.value), *warnings]
    assert not any(SECRET in text for text in said)
    assert len(said) == 5


def test_a_set_of_keys_is_kept_in_one_order() -> None:
    assert Config(ignored_keys={"b", "a", "c"}).ignored_keys == ("a", "b", "c")


def test_equal_arguments_make_equal_configs() -> None:
    assert with_token(ignored_keys=["a"], send_timeout_s=1) == with_token(ignored_keys=("a",), send_timeout_s=1.0)
    assert with_token().resolve() == with_token().resolve()
    assert hash(with_token(ignored_keys=["a"])) == hash(with_token(ignored_keys=("a",)))


def test_a_config_is_frozen_and_takes_keywords_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().token = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Config("shop")  # type: ignore[misc]


def test_a_resolved_config_is_whole_and_resolves_to_itself() -> None:
    resolved = with_token().resolve()
    assert isinstance(resolved, ResolvedConfig)
    assert [name for name, value in dataclasses.asdict(resolved).items() if value is None] == ["before_send"]
    assert resolved.resolve() is resolved
    assert pickle.loads(pickle.dumps(resolved)) == resolved
    assert dataclasses.replace(resolved, debug=True).enabled


def test_the_wire_form_holds_what_the_collector_needs() -> None:
    wire = with_token(application_name="shop", ignored_keys={"b", "a"}, state_dir="/s").to_wire()
    assert orjson.loads(orjson.dumps(wire)) == wire
    assert wire == {
        "app_name": "shop",
        "token": SECRET,
        "collector_url": "http://127.0.0.1:1",
        "metadata_only": True,
        "debug": False,
        "send_timeout_s": 1.0,
        "ignored_keys": ["a", "b"],
        "masking": "loose",
        "default_ignored_keys": True,
        "max_trace_size_bytes": 65536,
        "trimming": "strip",
        "state_dir": "/s",
        "proxy_url": None,
        "ca_file": None,
    }


def test_headers_travel_with_the_config_and_show_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_token(headers={"api-key": SECRET})
    assert SECRET not in repr(config) + repr(config.resolve())
    assert orjson.loads(config.to_wire().get("headers", "")) == {"api-key": SECRET}
    with pytest.raises(ValueError, match="headers=") as raised:
        Config(headers={"a b": SECRET})
    assert SECRET not in str(raised.value)
    monkeypatch.setenv("EPSAGON_HEADERS", f"x-key={SECRET}")
    assert orjson.loads(with_token().to_wire().get("headers", "")) == {"x-key": SECRET}


def test_values_are_shortened_where_no_backend_expects_the_rule_of_epsagon_go(monkeypatch: pytest.MonkeyPatch) -> None:
    otlp = Config(collector_url="otlp+http://127.0.0.1:4318")
    assert otlp.to_wire().get("trimming") == "shorten"
    assert dataclasses.replace(otlp, trimming="strip").resolve().trimming == "strip"
    monkeypatch.setenv("EPSAGON_TRIMMING", "strip")
    assert otlp.resolve().trimming == "strip"


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https://host/x", "http://p:1"),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "https://host", "http://low:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://host", None),
        ({"HTTP_PROXY": "p:1"}, "http://host", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "host"}, "http://host:8686", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://host", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "other"}, "http://host", "http://p:1"),
        ({"HTTP_PROXY": "http://\udc80"}, "http://host", None),
        ({"HTTP_PROXY": ""}, "http://host", None),
    ],
)
def test_the_proxy_is_the_one_that_this_environment_names(
    variables: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert with_token(collector_url=url).to_wire()["proxy_url"] == proxy


def test_the_ca_file_is_the_one_that_this_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/b.pem")
    assert with_token().to_wire()["ca_file"] == "/b.pem"
    monkeypatch.setenv("SSL_CERT_FILE", "/a.pem")
    assert with_token().to_wire()["ca_file"] == "/a.pem"


def test_importing_and_resolving_loads_nothing_heavy() -> None:
    program = (
        "import sys; from epsagon_fast.config import Config; Config(token='t', collector_url='http://h').to_wire();"
        "print(sorted({'urllib.request', 'ssl', 'http.client', 'urllib3'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert run.stdout.strip() == "[]"


def test_the_two_ways_to_say_how_much_is_recorded_agree_or_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode, metadata_only in (("strict", True), ("standard", True), ("everything", False)):
        assert Config(privacy=mode).resolve().metadata_only is metadata_only
        assert Config(privacy=mode, metadata_only=metadata_only).resolve().privacy == mode
        with pytest.raises(ValueError, match=f"privacy='{mode}' contradicts metadata_only={not metadata_only}"):
            Config(privacy=mode, metadata_only=not metadata_only)
    assert [Config(metadata_only=said).resolve().privacy for said in (True, False)] == ["standard", "everything"]
    monkeypatch.setenv("EPSAGON_PRIVACY", "strict")
    assert Config().resolve().metadata_only
    assert Config(metadata_only=False).resolve().privacy == "everything"


def test_of_two_contradicting_variables_the_one_that_shows_less_counts(
    untraced: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EPSAGON_METADATA", "FALSE")
    monkeypatch.setenv("EPSAGON_PRIVACY", "strict")
    assert with_token().resolve().privacy == "strict"
    monkeypatch.setenv("EPSAGON_METADATA", "TRUE")
    monkeypatch.setenv("EPSAGON_PRIVACY", "everything")
    assert with_token().resolve().privacy == "standard"
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("EPSAGON_PRIVACY contradicts EPSAGON_METADATA: privacy is strict; see ")


def test_one_field_is_read_as_resolve_would_without_a_warning(
    untraced: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EPSAGON_RUNTIME_DIR", "/run/x")
    assert Config().value("runtime_dir") == "/run/x"
    assert Config(runtime_dir="/run/y").value("runtime_dir") == "/run/y"
    assert Config().value("shutdown_timeout_s") == 2.0
    assert not caplog.records


def test_the_documentation_names_every_field_with_its_variable() -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    rows = {words[1].strip("` "): words[2].strip("` ") for line in page.splitlines() if (words := line.split("|"))[1:]}
    documented = {name: rows.get(name) for name in OPTIONS}
    assert documented == {name: option.variable or "" for name, option in OPTIONS.items()}


def test_there_is_one_list_of_options() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    parameters = inspect.signature(epsagon.init).parameters.values()
    assert list(OPTIONS) == list(fields) == list(ResolvedConfig.__annotations__)
    assert fields == {each.name: each.annotation for each in parameters}
    assert {(each.kind, each.default) for each in parameters} == {(inspect.Parameter.KEYWORD_ONLY, None)}


RIGHT = """
import pathlib
import epsagon_fast as epsagon

epsagon.init(token="t", ignored_keys={"card"}, runtime_dir=pathlib.Path("/run"), send_timeout_s=1, debug=None)
"""
WRONG = """
import epsagon_fast as epsagon

epsagon.init(tokn="t")
epsagon.init(token=1)
"""


def test_a_type_checker_sees_a_misspelt_option_and_a_wrong_type(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    options = ("--strict", "--cache-dir=/dev/null", "--follow-imports=silent", "--no-error-summary")
    command = [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"]
    env = {**os.environ, "MYPYPATH": str(Path(epsagon.__path__[0]).parent)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    assert [error.partition(" error:")[0] for error in errors] == ["wrong.py:4:", "wrong.py:5:"], done
    assert '"tokn"' in errors[0] and '"token"' in errors[1] and '"int"' in errors[1]


HERE = [
    "otlp+http://localhost:4318",
    "http://localhost:8686",
    "http://a.LocalHost/x",
    "http://127.0.0.1",
    "http://127.9.8.7:1/",
    "http://[::1]:80",
]
AWAY = [
    "http://backend:8686/secret-key",
    "http://10.0.0.1",
    "HTTP://[::2]",
    "http://127.0.0.1.example",
    "http://128.0.0.1",
    "otlp+http://backend/secret-key",
]


@pytest.mark.parametrize("url", [*HERE, *AWAY, "https://backend", f"http://{os.uname().nodename}:1"])
def test_what_goes_in_clear_to_another_machine_is_one_warning(
    untraced: None, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    for _ in range(3):
        Config(token="t", collector_url=url).resolve()
    assert [record.getMessage().partition(" unencrypted")[1] for record in caplog.records] == (
        [" unencrypted"] if url in AWAY else []
    )
    assert "secret-key" not in caplog.text


@pytest.mark.parametrize(
    "url", ["otlp+http://h:4318", "otlp+https://h/v1/traces?k=v", "otlp-protobuf+https://h", "OTLP+HTTP://h"]
)
def test_otlp_needs_no_token(untraced: None, caplog: pytest.LogCaptureFixture, url: str) -> None:
    assert Config(token="", collector_url=url, disable=False).resolve().enabled
    assert not Config(token="", collector_url=url, disable=True).resolve().enabled
    assert not [record for record in caplog.records if "token is set" in record.getMessage()]


@pytest.mark.parametrize(
    ("url", "advised"),
    [
        ("http://127.0.0.1:4318/secret-key", "otlp+http://127.0.0.1:4318"),
        ("https://h/secret-key/v1/traces/?k=v", "otlp+https://h"),
        ("http://localhost:43180", None),
        ("https://h/in?to=/v1/traces", None),
        ("otlp+http://127.0.0.1:4318", None),
    ],
)
def test_a_url_that_looks_like_otlp_is_one_warning_with_the_url_to_name(
    untraced: None, caplog: pytest.LogCaptureFixture, url: str, advised: str | None
) -> None:
    for _ in range(2):
        Config(token="t", collector_url=url).resolve()
    said = [record.getMessage() for record in caplog.records if "OTLP" in record.getMessage()]
    assert [text.removesuffix(see("OTLP")).rpartition(" ")[2] for text in said] == ([advised] if advised else [])
    assert "secret-key" not in caplog.text


@pytest.mark.parametrize("url", ["other+http://h", "otlp+ftp://h", "otlp+otlp+http://h", "+http://h", "otlphttp://h"])
def test_only_known_formats_may_stand_in_a_scheme(untraced: None, url: str) -> None:
    with pytest.raises(ValueError, match=r"otlp\+"):
        Config(collector_url=url)


def test_what_is_not_sent_does_not_go_in_clear(untraced: None, caplog: pytest.LogCaptureFixture) -> None:
    Config(token="t", collector_url=AWAY[0], disable=True).resolve()
    Config(token="t", collector_url=AWAY[0], test_mode=True).resolve()
    assert caplog.records == []


def as_another(users: tuple[int, int, int], groups: tuple[int, int, int]) -> Any:
    """Run in a child that has these real, effective and saved ids what Config makes of a caller's environment."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresgid(*groups)
            os.setresuid(*users)
            config = Config(disable=True).resolve()
            in_code = Config(disable=True, state_dir="/code").resolve().state_dir
            os.write(write, orjson.dumps([config.runtime_dir, config.state_dir, in_code, [*folders.places()]]))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with open(read, "rb") as answer:
        return orjson.loads(answer.read())


CALLERS = {"EPSAGON_RUNTIME_DIR": "/caller", "EPSAGON_STATE_DIR": "/caller", "TMPDIR": "/dev/shm", "HOME": "/caller"}


@pytest.mark.root
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("users", "groups"),
    [
        ((1234, 0, 0), (1234, 0, 0)),
        ((1234, 5678, 5678), (1234, 1234, 1234)),
        ((1234, 1234, 1234), (1234, 5678, 5678)),
    ],
)
def test_program_with_rights_that_its_caller_lacks_does_not_go_where_that_says(
    untraced: None,
    monkeypatch: pytest.MonkeyPatch,
    users: tuple[int, int, int],
    groups: tuple[int, int, int],
    named: bool,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name, value in CALLERS.items():
        if named or "EPSAGON" not in name:
            monkeypatch.setenv(name, value)
    assert as_another(users, groups) == ["", "", "/code", ["/dev/shm", "/tmp"]]


@pytest.mark.root
def test_daemon_that_acts_as_a_user_for_a_while_goes_where_its_own_environment_says(
    untraced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CALLERS.items():
        monkeypatch.setenv(name, value)
    assert as_another((0, 1234, 0), (0, 1234, 0))[:2] == ["/caller", "/caller"]


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("b\xfccher.example", "xn--bcher-kva.example"),
        ("h\xfc", "xn--h-eha"),
        # The old rules and the new ones say different names.
        ("stra\xdfe.example", "xn--..."),
        ("\udc80", "xn--..."),
    ],
)
@pytest.mark.parametrize("form", ["http://{}/p\xe4th", "otlp+https://{}:4318"])
def test_a_host_that_is_not_ascii_is_told_how_to_be_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str, said: str, form: str
) -> None:
    wanted = f"its host must be in ASCII, in its IDNA form: {said}"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        Config(collector_url=form.format(host))
    monkeypatch.setenv("EPSAGON_COLLECTOR_URL", form.format(host))
    assert host not in Config().resolve().collector_url
    assert wanted in caplog.text
    # Only of the host: a path is escaped as it is sent.
    assert Config(collector_url=form.format("here")).collector_url == form.format("here")
