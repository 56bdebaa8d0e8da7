"""What docs/operating.md says, and the files in examples/operating that it names."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from log_lines import logged

from epsagon_fast.commands import main
from epsagon_fast.config.options import OPTIONS
from epsagon_fast.queue.launch import PASSED_ON

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "examples" / "operating").iterdir())
UNITS = [path for path in FILES if path.suffix == ".service"]
PAGE = (ROOT / "docs" / "operating.md").read_text()
# Each gives a unit a namespace of its own.
APART = (
    r"^(Private|Protect(System|Home|Proc|Kernel|Control)|Dynamic|Root|ReadOnly|ReadWrite|Inaccessible|Bind|Temporary)"
)


def test_each_log_line_is_explained_and_no_other() -> None:
    rows = re.findall(r"^\| (`+)(.+?)\1 \| .*\|$", PAGE[PAGE.index("## Log lines") :], re.MULTILINE)
    assert sorted(line for _, line in rows) == sorted(logged())


def test_each_example_is_named_by_the_page() -> None:
    assert [path.name for path in FILES if f"](../examples/operating/{path.name})" not in PAGE] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_variables_in_an_example_are_ours(path: Path) -> None:
    known = {option.variable for option in OPTIONS.values()} | {*PASSED_ON, "EPSAGON_LAUNCH"}
    assert set(re.findall(r"EPSAGON_\w+", path.read_text())) - known == set()


def test_units_share_directories_and_namespaces() -> None:
    texts = [path.read_text() for path in UNITS]
    assert len({tuple(re.findall(r"EPSAGON_\w+_DIR=\S+", text)) for text in texts}) == 1
    assert not [text for text in texts if re.search(APART, text, re.MULTILINE)]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path in UNITS:
        # The programs are not installed here.
        text = re.sub(r"/srv/shop/venv/bin/\S+", "/bin/true", path.read_text())
        (tmp_path / path.name).write_text(text)
    words = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / path.name) for path in UNITS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_of_the_units_and_images_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    for path in FILES:
        for word in re.findall(r"[\"/]epsagon-fast\"?,? \"?(\w+)", path.read_text()):
            with pytest.raises(SystemExit) as ended:
                main([word, "--help"])
            assert ended.value.code == 0
    assert "--port" in capsys.readouterr().out


def test_a_pod_s_grace_is_longer_than_all_that_it_waits_for() -> None:
    pod = json.loads((ROOT / "examples/operating/kubernetes.json").read_text())["spec"]["template"]["spec"]
    [container] = pod["containers"]
    # gunicorn's graceful timeout, and ours.
    assert pod["terminationGracePeriodSeconds"] > 30 + 2
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    [initial] = pod["initContainers"]
    assert set(initial["command"][2:]) == set(mounts)
