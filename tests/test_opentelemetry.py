"""OpenTelemetry's own environment names the backend where ours does not."""

import json
import logging
import os
import sys
from typing import Any

import orjson
import pytest
from places import Place
from servers import Server

from epsagon_fast import __version__
from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.formats.otlp import OTLP, resource_of
from epsagon_fast.collector.parcel import Parcel, from_config
from epsagon_fast.collector.sending.verdict import _masked
from epsagon_fast.config import Config
from epsagon_fast.producer.opening import opening
from epsagon_fast.protocol import WireConfig

P = "OTEL_EXPORTER_OTLP_"
URL = "otlp+http://127.0.0.1:1"
ENDPOINT = {P + "ENDPOINT": "http://127.0.0.1:4318"}
SECRET = "key-of-the-vendor"


@pytest.fixture
def environment(untraced: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(**variables: str) -> Config:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return Config()

    return put


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        (ENDPOINT, "otlp+http://127.0.0.1:4318/v1/traces"),
        ({P + "ENDPOINT": "https://h/base/"}, "otlp+https://h/base/v1/traces"),
        ({P + "TRACES_ENDPOINT": "http://127.0.0.1:9/in", **ENDPOINT}, "otlp+http://127.0.0.1:9/in"),
        ({P + "TRACES_ENDPOINT": "https://h"}, "otlp+https://h/"),
        ({P + "PROTOCOL": "http/protobuf", **ENDPOINT}, "otlp-protobuf+http://127.0.0.1:4318/v1/traces"),
        ({P + "PROTOCOL": "http/protobuf", P + "TRACES_PROTOCOL": "http/json", **ENDPOINT}, None),
        ({P + "PROTOCOL": "grpc", **ENDPOINT}, None),
        ({"EPSAGON_COLLECTOR_URL": "http://127.0.0.1:1", "EPSAGON_TOKEN": "t", **ENDPOINT}, "http://127.0.0.1:1"),
        ({P + "ENDPOINT": ""}, "https://us-east-1.tc.epsagon.com"),
        ({P + "ENDPOINT": "localhost:4317"}, "https://us-east-1.tc.epsagon.com"),
    ],
)
def test_an_endpoint_is_used_unless_a_backend_is_named(environment: Any, variables: dict[str, str], url: str) -> None:
    config = environment(**variables).resolve()
    assert config.collector_url == (url or "otlp+http://127.0.0.1:4318/v1/traces")
    assert config.enabled == ("epsagon.com" not in config.collector_url)


def test_headers_go_to_their_endpoint_and_to_no_other(environment: Any) -> None:
    config = environment(**ENDPOINT, **{P + "HEADERS": f"api-key={SECRET}%21, x-team = shop ,"})
    wire = config.to_wire()
    assert json.loads(wire["headers"]) == {"api-key": SECRET + "!", "x-team": "shop"}
    destination = from_config(wire)
    assert SECRET not in repr(destination) + repr(config.resolve())
    assert SECRET not in _masked(f"denied: {SECRET}!", destination)
    post = OTLP.post([Parcel(bytes(16), destination, b"{}")])
    assert (post.headers["api-key"], "Authorization" in post.headers) == (SECRET + "!", False)
    assert "headers" not in Config(collector_url="otlp+http://127.0.0.1:1").to_wire()
    assert "headers" not in Config(collector_url="http://127.0.0.1:1").to_wire()


@pytest.mark.parametrize("headers", ["key", f"a b={SECRET}", f"a=b%0d%0aEvil: {SECRET}", f"a={SECRET}é", f"={SECRET}"])
def test_a_header_that_is_none_is_left_out_and_not_shown(
    environment: Any, caplog: pytest.LogCaptureFixture, headers: str
) -> None:
    caplog.set_level(logging.WARNING)
    wire = environment(**ENDPOINT, **{P + "HEADERS": f"good=1,{headers}"}).to_wire()
    assert json.loads(wire["headers"]) == {"good": "1"}
    assert "OTEL_EXPORTER_OTLP_HEADERS" in caplog.text
    assert SECRET not in caplog.text


def test_headers_of_the_code_go_wherever_it_sends(environment: Any) -> None:
    environment(**ENDPOINT, **{P + "HEADERS": "API-Key=env,x-team=shop"})
    for url in (URL, "http://127.0.0.1:1"):
        destination = from_config(Config(collector_url=url, token="t", headers={"api-key": SECRET}).to_wire())
        assert SECRET not in repr(destination)
        assert SECRET not in _masked(f"denied: {SECRET}", destination)
        post = format_for(destination).post([Parcel(bytes(16), destination, b"{}")])
        assert {name.lower(): value for name, value in post.headers.items()}["api-key"] == SECRET
        assert "x-team" not in post.headers
    said = json.loads(Config(headers={"api-key": SECRET}).to_wire()["headers"])
    assert said == {"api-key": SECRET, "x-team": "shop"}


def test_the_certificate_of_the_client_is_for_its_endpoint_alone(environment: Any) -> None:
    files = {P + "CLIENT_CERTIFICATE": "me.pem", P + "TRACES_CLIENT_KEY": "/key.pem"}
    wire = environment(**ENDPOINT, **files).to_wire()
    assert from_config(wire).tls_files[1:] == (os.path.abspath("me.pem"), "/key.pem")
    assert from_config(Config(collector_url=URL).to_wire()).tls_files[1:] == (None, None)


def test_a_header_of_the_user_takes_the_place_of_ours(environment: Any) -> None:
    wire = environment(**ENDPOINT, **{P + "HEADERS": "user-agent=mine,AUTHORIZATION=Basic%20x"}).to_wire()
    destination = from_config(wire)._replace(token="t")
    headers = OTLP.post([Parcel(bytes(16), destination, b"{}")]).headers
    assert headers == {"Content-Type": "application/json", "user-agent": "mine", "AUTHORIZATION": "Basic x"}


def test_what_leaves_the_machine_is_compressed_unless_the_user_says_otherwise(environment: Any) -> None:
    large = b'{"a":"' + b"x" * 5000 + b'"}'
    there = {P + "ENDPOINT": "http://there:4318"}
    for endpoint, word, packed in [
        (ENDPOINT, "gzip", True),
        (ENDPOINT, "none", False),
        (ENDPOINT, "", False),
        (there, "", True),
        (there, "none", False),
    ]:
        destination = from_config(environment(**endpoint, **{P + "COMPRESSION": word}).to_wire())
        post = OTLP.post([Parcel(bytes(16), destination, large)])
        assert post.headers.get("Content-Encoding") == ("gzip" if packed else None)
        assert (large in post.body) is not packed


def test_timeout_and_certificate_are_those_of_the_environment(environment: Any) -> None:
    variables = {P + "TIMEOUT": "2500", P + "TRACES_CERTIFICATE": "/ca.pem", "SSL_CERT_FILE": "/other.pem"}
    wire = environment(**ENDPOINT, **variables).to_wire()
    assert (wire["send_timeout_s"], wire["ca_file"]) == (2.5, "/ca.pem")
    assert environment(EPSAGON_SEND_TIMEOUT_SEC="4").to_wire()["send_timeout_s"] == 4.0
    assert Config(send_timeout_s=5).to_wire()["send_timeout_s"] == 5.0


@pytest.mark.parametrize("timeout", ["0", "-1", "2s", "99999999"])
def test_a_timeout_that_is_none_is_ignored(environment: Any, timeout: str) -> None:
    assert environment(**ENDPOINT, **{P + "TIMEOUT": timeout}).to_wire()["send_timeout_s"] == 1.0


def attributes(config: Config) -> dict[str, Any]:
    wire: WireConfig = config.to_wire()
    return dict(resource_of(wire))


def test_a_resource_is_what_the_environment_says(environment: Any) -> None:
    assert attributes(environment(**ENDPOINT))["service.name"] == "unknown_service:python"
    said = "service.name=cart,deployment.environment.name=a%2Cb,broken, =x"
    named = attributes(environment(OTEL_RESOURCE_ATTRIBUTES=said))
    assert (named["service.name"], named["deployment.environment.name"]) == ("cart", "a,b")
    assert attributes(environment(OTEL_SERVICE_NAME="shop"))["service.name"] == "shop"
    assert attributes(Config(application_name="mine"))["service.name"] == "mine"


def test_a_resource_that_is_none_is_left_out_and_told(environment: Any, caplog: pytest.LogCaptureFixture) -> None:
    named = attributes(environment(**ENDPOINT, OTEL_RESOURCE_ATTRIBUTES=f"a%2Cb%3D=c%3D%2C,{SECRET},=x,"))
    assert named["a,b="] == "c=,"
    assert "OTEL_RESOURCE_ATTRIBUTES" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "True"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_an_environment_that_wants_no_traces_gets_none_at_its_endpoint(
    environment: Any, caplog: pytest.LogCaptureFixture, off: dict[str, str]
) -> None:
    assert not environment(**ENDPOINT, **off).resolve().enabled
    assert caplog.messages == []
    # A backend of our own, or a word of our own, is no matter of OpenTelemetry's.
    assert Config(collector_url=URL).resolve().enabled
    assert Config(disable=False).resolve().enabled
    assert environment(DISABLE_EPSAGON="no").resolve().enabled


def test_what_code_says_of_the_process_counts_before_the_environment(environment: Any) -> None:
    environment(OTEL_RESOURCE_ATTRIBUTES="team=a,region=eu", OTEL_SERVICE_NAME="shop")
    said = attributes(Config(collector_url=URL, resource_attributes={"team": "b", "rack": 7, "spot": True}))
    assert [said[key] for key in ("team", "rack", "spot", "region", "service.name")] == ["b", 7, True, "eu", "shop"]


def test_a_resource_is_the_process_that_recorded(environment: Any) -> None:
    environment(**ENDPOINT)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, opening(Config().resolve(), None))
        os._exit(0)
    os.waitpid(pid, 0)
    mine, childs = (
        resource_of(orjson.loads(data)["config"]) for data in (opening(Config().resolve(), None), os.read(read, 65536))
    )
    assert (mine["process.pid"], childs["process.pid"]) == (os.getpid(), pid)
    assert mine["process.runtime.name"] == sys.implementation.name
    assert mine["process.runtime.version"] == "{}.{}.{}".format(*sys.version_info)
    assert mine["process.runtime.description"] == sys.version
    assert mine["host.name"] == os.uname().nodename
    assert {key: mine[key] for key in mine if key.startswith("telemetry.sdk.")} == {
        "telemetry.sdk.name": "epsagon_fast",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }


@pytest.mark.parametrize(("found", "warnings"), [(None, 1), (object(), 0)])
def test_protobuf_without_its_package_is_told_once(
    environment: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, found: Any, warnings: int
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    caplog.set_level(logging.WARNING)
    environment()
    for url in (URL, "otlp-protobuf+http://127.0.0.1:1", "OTLP-PROTOBUF+http://127.0.0.1:1/a-b"):
        Config(collector_url=url).resolve()
    assert sum("epsagon-fast[otlp]" in message for message in caplog.messages) == warnings


def test_a_program_that_knows_only_opentelemetrys_environment_is_traced(place: Place) -> None:
    with Server() as server:
        for name in ("EPSAGON_COLLECTOR_URL", "EPSAGON_TOKEN"):
            place.env.pop(name, None)
        place.env |= {P + "ENDPOINT": server.url.rstrip("/"), P + "HEADERS": f"api-key={SECRET}"}
        place.run("import epsagon_fast as epsagon\nwith epsagon.trace('work'): pass\nepsagon.flush(60)")
        [request] = server.wait_for(1)
    assert (request.path, request.headers["api-key"]) == ("/v1/traces", SECRET)
    assert "authorization" not in request.headers
