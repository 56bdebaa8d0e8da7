import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import Place
from waiting import TIMEOUT_S

from epsagon_fast import __version__, commands
from epsagon_fast.commands import backend, main

SCRIPT = [os.path.join(os.path.dirname(sys.executable), "epsagon-fast")]
MODULE = [sys.executable, "-m", "epsagon_fast"]


def done(line: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("program", [SCRIPT, MODULE], ids=["script", "module"])
def test_the_version_is_the_packages(program: list[str], tmp_path: Path) -> None:
    answer = done([*program, "--version"], tmp_path)
    assert (answer.returncode, answer.stdout) == (0, f"epsagon-fast {__version__}\n")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.partition("commands:\n")[2].splitlines()] == list(commands.COMMANDS)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([name, "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: epsagon-fast {name} ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["--no-such-option"], "COMMAND"),
        (["no-such-command"], "no-such-command"),
        (["backend", "--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_wrong(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: epsagon-fast ") and named in said


def test_only_the_chosen_command_is_imported(tmp_path: Path) -> None:
    program = """
import atexit, sys
atexit.register(lambda: print([name for name in sys.modules if name.startswith(("epsagon_fast.commands.", "uvicorn"))]))
from epsagon_fast.commands import main
main(["backend", "--help"])
"""
    answer = done([sys.executable, "-c", program], tmp_path)
    assert answer.stdout.splitlines()[-1] == "['epsagon_fast.commands.saying', 'epsagon_fast.commands.backend']"


def test_an_interrupted_command_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(backend, "run", interrupted)
    assert main(["backend"]) == 1


@pytest.mark.parametrize("words", [["doctor"], ["status"], ["run", "--list"]], ids=" ".join)
def test_output_that_finds_no_room_is_said_in_a_line(place: Place, words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        line = [*MODULE, *words]
        answer = subprocess.run(line, env=place.env, stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT_S)
    assert answer.returncode == 1
    assert (
        answer.stderr.startswith(f"epsagon-fast {words[0]}: cannot write".encode()) and answer.stderr.count(b"\n") == 1
    )


def test_reader_that_has_seen_enough_gets_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        answer = subprocess.run(
            [*MODULE, "status", "--watch"], cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE, timeout=TIMEOUT_S
        )
    assert (answer.returncode, answer.stderr) == (1, b"")
