"""Each block of Python in the pages runs, each command of ours in them is one, each configuration can be read."""

import configparser
import doctest
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from places import Place
from waiting import TIMEOUT_S

from epsagon_fast import commands

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "examples/README.md", ROOT / "CONTRIBUTING.md"])


class Shown(NamedTuple):
    """One block of a page."""

    page: str
    number: int
    kind: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}[{self.number}]"


def shown(path: Path) -> list[Shown]:
    """The fenced blocks of a page, and those that are indented."""
    text = path.read_text()
    fenced = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"(?:(?<=\n\n)|\A)((?:    .*\n|\n(?=    ))+)", rest)
    blocks = [*fenced, *(("indented", re.sub(r"^    ", "", each, flags=re.MULTILINE)) for each in indented)]
    return [Shown(path.name, number, kind, block) for number, (kind, block) in enumerate(blocks)]


BLOCKS = [block for path in PAGES for block in shown(path)]
PYTHON = [block for block in BLOCKS if block.kind == "python"]

# What the reader has already: the page says so, or its words do.
HAS = {
    "celery.md[0]": "from celery import Celery",
    "celery.md[1]": """
import os
import epsagon_fast as epsagon
from celery import Celery, chain
from epsagon_fast.integrations.celery import instrument
""",
    "logs-and-threads.md[2]": """
import epsagon_fast as epsagon
from concurrent.futures import ThreadPoolExecutor
pool, charge, order = ThreadPoolExecutor(1), print, "c-17"
""",
    "opentelemetry.md[2]": """
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
""",
    "propagation.md[1]": "import epsagon_fast as epsagon\nheaders = {}",
    "propagation.md[2]": """
import os, requests
from celery import Celery
app = Celery("shop")
""",
    "servers.md[0]": "def app(environ, start_response): return []",
    "testing.md[1]": "import pytest, epsagon_fast.testing",
    "testing.md[2]": """
import epsagon_fast as epsagon
from types import SimpleNamespace
from epsagon_fast.testing import capture_traces

def get(path):
    with epsagon.trace("localhost"), epsagon.event("look up"):
        return SimpleNamespace(status_code=200)

client = SimpleNamespace(get=get)
""",
}
RUN = """
import json, os, sys, traceback
for name, source in json.load(open(sys.argv[1])):
    if os.fork() == 0:
        try:
            exec(compile(source, name, "exec"), {"__name__": "shown"})
            code = 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        os._exit(code)
    if os.wait()[1]:
        print("failed:", name, flush=True)
"""


def test_each_block_of_python_runs(place: Place) -> None:
    """Each in a process of its own: some change a library for good."""
    assert {block.name for block in PYTHON} >= set(HAS), "the page has changed"
    sources = [(block.name, f"{HAS.get(block.name, '')}\n{block.text}") for block in PYTHON]
    (place.scratch / "sources.json").write_text(json.dumps(sources))
    process = place.start(RUN, "sources.json")
    out, errors = process.communicate(timeout=TIMEOUT_S)
    assert "failed:" not in out and process.returncode == 0, out + errors


@pytest.mark.parametrize("block", [block for block in BLOCKS if ">>> " in block.text], ids=lambda block: block.name)
def test_each_session_prints_what_it_shows(block: Shown) -> None:
    example = doctest.DocTestParser().get_doctest(block.text, {}, block.name, None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example)
    assert (runner.tries, runner.failures) == (len(example.examples), 0)


def our_commands() -> list[tuple[str, str]]:
    """The lines of all blocks that begin with our command, after assignments of variables, with their pages."""
    found = []
    for block in BLOCKS:
        for line in block.text.splitlines():
            command = re.match(r"(?:[A-Z_]+=\S+ )*(epsagon-fast [a-z].*)", line)
            if command:
                found.append((block.page, command[1]))
    return found


@pytest.mark.parametrize(("page", "line"), sorted(set(our_commands())))
def test_each_command_of_ours_is_one(page: str, line: str) -> None:
    commands.parse([word for word in shlex.split(line, comments=True)[1:] if word != "&"])


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "ini"], ids=lambda block: block.name)
def test_each_configuration_can_be_read(block: Shown) -> None:
    read = configparser.ConfigParser()
    read.read_string(block.text)
    assert all(map(dict, map(read.items, read.sections()))) and read.sections()


def test_each_kind_of_block_is_tried_by_some_test() -> None:
    """Or is for people: diffs and drawings. promtool reads the rules, in test_metrics.py."""
    assert {block.kind for block in BLOCKS} == {"python", "sh", "indented", "ini", "yaml", "diff", "text"}
    assert [block.page for block in BLOCKS if block.kind == "yaml"] == ["metrics.md"]
