"""The configuration files of examples/scaling are ones that a real Collector takes."""

import os
import subprocess
from pathlib import Path

import pytest
from built import EXAMPLES, built
from waiting import TIMEOUT_S

FILES = sorted(EXAMPLES.glob("*.yaml"))


def validated(file: Path) -> "subprocess.CompletedProcess[str]":
    words = [built("otelcol"), "validate", "--config", str(file)]
    env = {**os.environ, "GOMAXPROCS": "1", "QUEUE_FOLDER": str(file.parent)}
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_collector_takes_each_file_of_the_examples(file: Path) -> None:
    done = validated(file)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_collector_refuses_a_file_with_a_word_that_it_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(FILES[0].read_text().replace("max_elapsed_time", "max_elapsed_tim"))
    assert "max_elapsed_tim" in validated(wrong).stderr
