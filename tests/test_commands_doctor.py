"""`epsagon-fast doctor`: each hop well, and each hop ill."""

import json
import os

import pytest
import servers
from naming import named
from places import Place
from servers import Server

from epsagon_fast.commands import doctor as command
from epsagon_fast.config import Config
from epsagon_fast.pages import see
from epsagon_fast.queue.writer import Writer

HOPS = ["config", "build", "folder", "queue", "collector", "backend"]


def doctor(place: Place, **environment: str) -> tuple[int, list[list[str]]]:
    """Return the exit code and, for each hop, its verdict, its name and the text."""
    place.env |= {"EPSAGON_SHUTDOWN_TIMEOUT_SEC": "0.2", **environment}
    done = place.command("doctor")
    assert "Traceback" not in done.stderr
    assert "secret-token" not in done.stdout + done.stderr
    return done.returncode, [line.split(None, 2) for line in done.stdout.splitlines()]


def test_all_is_well_when_the_backend_takes_a_trace() -> None:
    with Server() as server:
        place = Place(server.url + "secret-token?key=secret-token")
        code, hops = doctor(place)
        place.close()
        assert code == 0
        assert [hop[:2] for hop in hops] == [["ok", name] for name in HOPS]
        assert hops[-1][2] == f"{server.url.rstrip('/')}: DELIVERED"
        (request,) = server.requests
        assert json.loads(request.body)["events"][0]["resource"]["type"] == "doctor"


@pytest.mark.parametrize(
    ("environment", "said"), [({"EPSAGON_TOKEN": ""}, "EPSAGON_TOKEN"), ({"DISABLE_EPSAGON": "1"}, "DISABLE_EPSAGON")]
)
def test_config_that_sends_nothing_is_named(place: Place, environment: dict[str, str], said: str) -> None:
    code, (hop,) = doctor(place, **environment)
    assert (code, hop[:2]) == (1, ["BAD", "config"])
    assert said in hop[2]
    assert os.listdir(place.runtime_dir) == []


def test_folder_that_cannot_be_used_is_named(place: Place) -> None:
    os.chmod(place.runtime_dir, 0o777)
    code, hops = doctor(place)
    assert code == 1
    assert hops[-1][:2] == ["BAD", "folder"] and "open to others" in hops[-1][2]
    # The others say the same, each in its own name.
    for name in ("status", "metrics"):
        assert (
            place.command(name).stderr
            == f"epsagon-fast {name}: tracing is off: {hops[-1][2]}{see(f'epsagon-fast {name}')}\n"
        )


def test_collector_that_nobody_may_start_is_named(place: Place) -> None:
    code, hops = doctor(place, EPSAGON_LAUNCH="0")
    assert code == 1
    assert hops[-1][:2] == ["BAD", "collector"] and "EPSAGON_LAUNCH" in hops[-1][2]


def test_collector_that_cannot_be_started_is_named(
    untraced: None, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "START_TIMEOUT_S", 0.1)
    monkeypatch.setattr(Writer, "ensure_collector", lambda self: None)
    monkeypatch.setattr(Writer, "collector_lives", lambda self: False)
    config = Config(runtime_dir=place.runtime_dir, token="t", collector_url="http://x")
    hop = command._collector(config.resolve())
    assert not hop.is_well and f"{place.folder}/log" in hop.text


@pytest.mark.parametrize(
    ("behave", "said"), [(servers.status(401), "REJECTED (401)"), (servers.status(503), "503"), (None, "")], ids=named
)
def test_backend_that_does_not_take_it_is_named(behave: servers.Behaviour | None, said: str) -> None:
    server = Server(behave)
    url = server.url
    if behave is None:
        server.close()
    place = Place(url)
    try:
        code, hops = doctor(place)
    finally:
        place.close()
        server.close()
    assert code == 1
    assert hops[-1][:2] == ["BAD", "backend"]
    assert url.rstrip("/") in hops[-1][2] and said in hops[-1][2]


def test_an_otlp_server_that_is_not_named_as_one_is_told() -> None:
    with Server(servers.status(200, body=b'{"partialSuccess":{}}')) as server:
        place = Place(server.url + "v1/traces")
        code, hops = doctor(place)
        place.close()
    assert (code, hops[-1][:2]) == (1, ["BAD", "backend"])
    assert hops[-1][2].endswith("REJECTED (otlp_endpoint)")
    assert hops[0][2].endswith(f"name it otlp+{server.url.rstrip('/')}")


def test_otlp_is_delivered_without_a_token() -> None:
    with Server(servers.status(200, body=b'{"partialSuccess":{}}')) as server:
        place = Place("otlp+" + server.url.rstrip("/"))
        code, hops = doctor(place, EPSAGON_TOKEN="")
        place.close()
    assert (code, hops[-1][:2], hops[0][2].partition(",")[0]) == (0, ["ok", "backend"], "no token is needed")
    assert server.requests[0].path == "/v1/traces"
