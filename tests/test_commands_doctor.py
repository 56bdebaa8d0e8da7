"""`epsagon-fast doctor`: each hop well, and each hop ill."""

import json
import os
import re
import time
from pathlib import Path

import pytest
import servers
from naming import named
from places import Place
from servers import Server

from epsagon_fast.collector.sending.outbox.file import OutboxFile
from epsagon_fast.commands.doctor import clock, environment, way
from epsagon_fast.commands.doctor.finding import BAD, LOOK, OK, Finding
from epsagon_fast.compat.options import WITHOUT_MEANING
from epsagon_fast.config import Config
from epsagon_fast.pages import ADDRESS, see
from epsagon_fast.queue.writer import Writer

PLACES = ["environment", "build", "run", "config", "folder", "state", "queue", "collector", "backend", "clock"]


def doctor(place: Place, **environment: str) -> tuple[int, list[Finding]]:
    """Return the exit code and what was found."""
    place.env |= {"EPSAGON_SHUTDOWN_TIMEOUT_SEC": "0.2", **environment}
    done = place.command("doctor", "--json")
    assert "Traceback" not in done.stderr
    assert "secret-token" not in done.stdout + done.stderr
    # A row says it once; a warning in between would say it again.
    assert done.stderr == ""
    found = [Finding(**json.loads(line)) for line in done.stdout.splitlines()]
    # What is not well says what to do, and names its page.
    assert all(ADDRESS in each.advice for each in found if each.verdict != OK)
    return done.returncode, found


def test_all_is_well_when_the_backend_takes_a_trace() -> None:
    began = time.time()
    with Server() as server:
        place = Place(server.url + "secret-token?key=secret-token")
        code, found = doctor(place)
        place.close()
        assert code == 0
        assert [(each.verdict, each.place) for each in found] == [(OK, name) for name in PLACES]
        assert found[-2].text == f"{server.url.rstrip('/')}: DELIVERED"
        request, asked = server.requests
        assert asked.method == "HEAD" and "authorization" not in asked.headers
        (runner,) = json.loads(request.body)["events"]
        assert runner["resource"]["type"] == "doctor"
        # A viewer shows it where it was: a trace of 1970 would be the first to be forgotten.
        assert began <= runner["start_time"] <= runner["start_time"] + runner["duration"] <= time.time()
        assert runner["duration"] > 0


@pytest.mark.parametrize(
    ("environment", "said"), [({"EPSAGON_TOKEN": ""}, "EPSAGON_TOKEN"), ({"DISABLE_EPSAGON": "1"}, "DISABLE_EPSAGON")]
)
def test_config_that_sends_nothing_is_named(place: Place, environment: dict[str, str], said: str) -> None:
    code, found = doctor(place, **environment)
    assert (code, found[-1].verdict, found[-1].place) == (1, BAD, "config")
    assert said in found[-1].text
    assert os.listdir(place.runtime_dir) == []


def test_folder_that_cannot_be_used_is_named(place: Place) -> None:
    os.chmod(place.runtime_dir, 0o777)
    code, found = doctor(place)
    assert code == 1
    assert found[-1][:2] == ("folder", BAD) and "open to others" in found[-1].text
    # The others say the same, each in its own name.
    for name in ("status", "metrics"):
        assert (
            place.command(name).stderr
            == f"epsagon-fast {name}: tracing is off: {found[-1].text}{see(f'epsagon-fast {name}')}\n"
        )


def test_collector_that_nobody_may_start_is_named(place: Place) -> None:
    code, found = doctor(place, EPSAGON_LAUNCH="0")
    assert code == 1
    assert found[-1][:2] == ("collector", BAD) and "EPSAGON_LAUNCH" in found[-1].text


def test_collector_that_cannot_be_started_is_named(
    untraced: None, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way, "START_TIMEOUT_S", 0.1)
    monkeypatch.setattr(Writer, "ensure_collector", lambda self: None)
    monkeypatch.setattr(Writer, "collector_lives", lambda self: False)
    config = Config(runtime_dir=place.runtime_dir, token="t", collector_url="http://x")
    found = way._collector(config.resolve())
    assert found.verdict == BAD and f"{place.folder}/log" in found.advice


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
        code, found = doctor(place)
    finally:
        place.close()
        server.close()
    assert code == 1
    assert found[-1][:2] == ("backend", BAD)
    assert url.rstrip("/") in found[-1].text and said in found[-1].text


def test_backend_that_has_come_back_is_not_to_be_started_again(untraced: None) -> None:
    with Server() as server:
        config = Config(token="t", collector_url=server.url).resolve()
        assert way.remedy(config, "connection") == way.ANSWERS_NOW
        # It answers, and not well.
        assert way.remedy(config, "503") == way.LOOK_THERE
    assert way.remedy(config, "connection") == way.REMEDIES["connection"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("htp://shop", "EPSAGON_COLLECTOR_URL=htp://shop cannot be used"),
        ("no url", "an unreadable URL cannot be used"),
        ("", "no backend is named"),
    ],
)
@pytest.mark.parametrize("token", ["t", ""], ids=["token", "no token"])
def test_a_backend_that_is_not_named_ends_the_way_before_it_begins(
    place: Place, url: str, said: str, token: str
) -> None:
    code, found = doctor(place, EPSAGON_COLLECTOR_URL=url, EPSAGON_TOKEN=token)
    assert (code, *found[-1][:2]) == (1, "config", BAD)
    assert said in found[-1].text and "epsagon.com" not in found[-1].text
    assert os.listdir(place.runtime_dir) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [("", "which is /;"), ("v1/traces", "which is /v1/traces;"), ("secret-token/x", "which is not shown")],
)
def test_wrong_path_is_told_if_it_holds_no_secret(path: str, said: str) -> None:
    with Server(servers.status(404)) as server:
        place = Place(server.url + path)
        _, found = doctor(place)
        place.close()
    assert found[-1].text.endswith("REJECTED (404)") and said in found[-1].advice


@pytest.mark.parametrize("was_there", [False, True])
def test_trace_that_the_backend_does_not_take_is_not_kept(was_there: bool) -> None:
    with Server(servers.status(503)) as server:
        place = Place(server.url)
        if was_there:
            place.run("import epsagon_fast\nwith epsagon_fast.trace('another'): pass\nepsagon_fast.flush(5)")
        code, found = doctor(place)
        outbox = OutboxFile(found[PLACES.index("state")].text.partition(" keeps ")[0], b"")
        assert (code, found[-1].text.partition(": ")[2]) == (1, "STORED (503)")
        assert sum(outbox.stored().values()) == was_there
        outbox.close()
        place.close()


def test_state_that_cannot_be_written_or_is_full_is_told(
    untraced: None, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(runtime_dir=place.runtime_dir, state_dir=tmp_path, token="t", collector_url="http://x").resolve()
    assert way._state(config).verdict == OK
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 1, *[0] * 7)))
    assert "has no room" in way._state(config).text
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = way._state(config)
    assert found.verdict == LOOK and "cannot be written" in found.text


def test_collector_that_it_started_leaves_if_the_backend_is_not_there(place: Place) -> None:
    code, found = doctor(place, EPSAGON_COLLECTOR_URL="http://no-such-host.invalid")
    assert (code, found[-1].text) == (1, "http://no-such-host.invalid: STORED (dns)")
    place.until_left()


def test_clock_that_is_wrong_is_told_at_the_end_of_the_way() -> None:
    with Server(servers.status(200, {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"})) as server:
        place = Place(server.url)
        code, found = doctor(place)
        place.close()
    assert (code, *found[-1][:2]) == (0, "clock", LOOK) and "s ahead of the backend's" in found[-1].text


def test_an_otlp_server_that_is_not_named_as_one_is_told() -> None:
    with Server(servers.status(200, body=b'{"partialSuccess":{}}')) as server:
        place = Place(server.url + "v1/traces")
        code, found = doctor(place)
        place.close()
    assert (code, *found[-1][:2]) == (1, "backend", BAD)
    assert found[-1].text.endswith("REJECTED (otlp_endpoint)")
    assert f"name it otlp+{server.url.rstrip('/')};" in found[PLACES.index("config") + 1].advice


def test_a_page_that_answers_in_place_of_an_otlp_server_is_told() -> None:
    page = b"<!DOCTYPE html><title>Sign in</title>"
    with Server(servers.status(200, {"Content-Type": "text/html"}, page)) as server:
        place = Place("otlp+" + server.url.rstrip("/"))
        code, found = doctor(place, EPSAGON_TOKEN="")
        place.close()
    assert (code, *found[-1][:2]) == (1, "backend", BAD)
    assert found[-1].text.endswith("REJECTED (web_page)") and "page for people" in found[-1].advice


def test_otlp_is_delivered_without_a_token() -> None:
    with Server(servers.status(200, body=b'{"partialSuccess":{}}')) as server:
        place = Place("otlp+" + server.url.rstrip("/"))
        code, found = doctor(place, EPSAGON_TOKEN="")
        place.close()
    config, backend = (found[PLACES.index(name)] for name in ("config", "backend"))
    assert (code, backend.verdict, config.text.partition(",")[0]) == (0, OK, "no token is needed")
    assert server.requests[0].path == "/v1/traces"


def test_variables_that_mean_nothing_and_that_contradict_are_told(place: Place) -> None:
    given = {
        "EPSAGON_TOKEN": "",
        "EPSAGON_COLECTOR_URL": "x",
        "EPSAGON_SSL": "TRUE",
        "EPSAGON_DEBUG": "perhaps",
        "EPSAGON_INSTRUMENT": "redis",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    }
    _, found = doctor(place, **given)
    told = {each.text.split()[0].partition("=")[0]: each for each in found if each.verdict == LOOK}
    assert {"EPSAGON_COLECTOR_URL", "EPSAGON_DEBUG", "EPSAGON_COLLECTOR_URL", "EPSAGON_INSTRUMENT:"} <= {*told}
    assert told["EPSAGON_COLECTOR_URL"].advice.startswith("did you mean EPSAGON_COLLECTOR_URL?")
    assert WITHOUT_MEANING["EPSAGON_SSL"] in told["EPSAGON_SSL"].advice


def test_each_contradiction_is_found_and_none_in_a_plain_environment(
    untraced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> list[str]:
        config = Config(collector_url="http://x", token="t").resolve()
        return [each.text for each in environment.CONTRADICTIONS if each.is_there(config)]

    assert found() == []
    given = {
        "EPSAGON_COLLECTOR_URL": "http://x",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://y",
        "EPSAGON_APP_NAME": "shop",
        "OTEL_SERVICE_NAME": "web",
        "EPSAGON_RING_BYTES": "65536",
        "EPSAGON_SAMPLE_RATE": "0.5",
        "EPSAGON_SAMPLING": "rate=1%",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert len(found()) == len(environment.CONTRADICTIONS)
    # A digit for str.isdigit, and none for int.
    monkeypatch.setenv("EPSAGON_RING_BYTES", "\u00b2")
    assert len(found()) == len(environment.CONTRADICTIONS) - 1


def test_each_variable_that_the_package_reads_is_known() -> None:
    package = Path(clock.__file__).parents[2]
    read = {name for path in package.rglob("*.py") for name in re.findall(r'"(EPSAGON_[A-Z_]+)"', path.read_text())}
    assert read - {environment.PREFIX} - WITHOUT_MEANING.keys() <= environment.KNOWN


@pytest.mark.parametrize(("theirs", "said"), [(70.0, "30 s ahead"), (99.0, ""), (104.0, ""), (152.0, "50 s behind")])
def test_clock_that_does_not_go_with_the_backend_s_is_told(theirs: float, said: str) -> None:
    found = clock.compared(theirs, 100.0, 102.0)
    assert found.verdict == (LOOK if said else OK) and said in found.text


@pytest.mark.parametrize("given", [{}, {"Date": "no date"}, {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}], ids=str)
def test_clock_of_a_backend_is_that_of_its_answer(untraced: None, given: dict[str, str]) -> None:
    with Server(servers.status(404, given)) as server:
        found = clock.finding(Config(collector_url=server.url, token="t").resolve())
    assert found.verdict == (LOOK if "1994" in str(given) else OK)


def test_findings_are_rows_for_people(place: Place) -> None:
    place.env |= {"EPSAGON_TOKEN": ""}
    lines = place.command("doctor").stdout.splitlines()
    assert lines[-2].startswith("BAD  config      EPSAGON_TOKEN is not set")
    assert lines[-1].startswith("                 -> set it") and lines[-1].endswith(see("options").removeprefix("; "))
