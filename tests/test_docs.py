"""The docs say what is so: their links lead somewhere, the files that they name exist, their modules run."""

import ast
import os
import re
import smtplib
import types
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

import epsagon_fast as epsagon
from epsagon_fast.collector.formats import FittedTrace
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sampling.policy import Seen
from epsagon_fast.commands import COMMANDS
from epsagon_fast.testing import capture_traces
from epsagon_fast.thresholds import ALL, ALWAYS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
PACKAGE = sorted(ROOT.glob("epsagon_fast/**/*.py"))
SOURCES = [*PACKAGE, *sorted(ROOT.glob("_ext/*/*.[hp]*")), *sorted(ROOT.glob("benches/*.[mp]*")), ROOT / "Makefile"]
# Sentences with these must be read twice; and outside of this project "the seed" is no name of epsagon-go.
UNWANTED = re.compile(r"\b(whoever|nobody|the seed)\b", re.IGNORECASE)
# Where the project's links lead that stand outside of it.
HERE = r"https://(?:github|raw\.githubusercontent)\.com/epsagon-fast/epsagon_fast"
# They tell what was said and done at the time.
HISTORY = {"CHANGELOG.md"}
README = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def module_in(name: str, number: int = 0) -> Any:
    """Run one of the modules that a page shows."""
    source = re.findall(r"^```python\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)[number]
    module = types.ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
    return module


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_to_a_page_and_a_heading(path: Path) -> None:
    # A package index shows the README without the rest, so its links are absolute; here they are as the others.
    text = re.sub(rf"{HERE}/(?:(?:blob|tree)/)?main/", os.path.relpath(ROOT, path.parent) + "/", path.read_text())
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        there = (path.parent / target) if target else path
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}, anchor


@pytest.mark.parametrize("name", ["web", "survival", "seen"])
def test_the_readme_shows_the_table_that_was_measured_last(name: str) -> None:
    marks = rf"^<!-- Written by make bench: {name} -->\n(.+?)^<!-- to here -->$"
    shown = re.search(marks, README, re.DOTALL | re.MULTILINE)
    assert shown
    assert shown[1] in (ROOT / "benches/RESULTS.md").read_text()


def test_readme_has_no_link_that_a_package_index_cannot_follow() -> None:
    assert not re.findall(r"\]\((?!https?:|#)[^)]*\)", README)


def test_each_page_has_its_place_in_the_site() -> None:
    places = re.findall(r"^ +- .*?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(places) == sorted(["index.md", *(path.name for path in ROOT.glob("docs/*.md"))])


def test_site_shows_each_command() -> None:
    assert re.findall(r"^::: epsagon_fast\.commands\.(\w+)$", page("command-line.md"), re.MULTILINE) == list(COMMANDS)


def test_architecture_names_files_that_exist() -> None:
    named = set(re.findall(r"`([\w/]+(?:\.(?:py|pyx|h|toml)|/))`", page("architecture.md")))
    roots = [ROOT, ROOT / "epsagon_fast", ROOT / "epsagon_fast/collector"]
    assert len(named) > 30
    assert not {each for each in named if not any((root / each).exists() for root in roots)}


def test_architecture_names_each_folder_and_each_module_beside_them() -> None:
    package = ROOT / "epsagon_fast"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("__")} - {"version.py"}
    assert not {name for name in folders | modules if f"`{name}`" not in page("architecture.md")}


def test_glossary_explains_each_word_in_one_line() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (.+) \|$", page("glossary.md"), re.MULTILINE)[1:]
    assert len(rows) >= 20
    assert len({word for word, _ in rows}) == len(rows)


@pytest.mark.parametrize("path", [path for path in PAGES if path.name not in HISTORY], ids=lambda path: path.name)
def test_pages_are_written_in_plain_words(path: Path) -> None:
    assert not UNWANTED.findall(path.read_text())


def test_comments_and_docstrings_are_written_in_plain_words() -> None:
    found = {str(path.relative_to(ROOT)): UNWANTED.findall(path.read_text()) for path in SOURCES}
    assert not {path: words for path, words in found.items() if words}


def test_a_name_of_a_class_means_one_thing() -> None:
    """Only the two middlewares share one, because an application names them alike."""
    found = [node for path in PACKAGE for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    counts = Counter(node.name for node in found)
    assert {name for name, count in counts.items() if count > 1} == {"TracingMiddleware"}


def test_each_module_says_what_it_is() -> None:
    assert not [str(path) for path in PACKAGE if not ast.get_docstring(ast.parse(path.read_text()))]


def test_instrumentation_of_the_docs_makes_an_event_of_each_call_and_changes_nothing_else() -> None:
    original = smtplib.SMTP.sendmail
    smtp = module_in("adding-an-instrumentation.md")
    smtp.instrument()
    try:
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtplib.SMTP().sendmail("me", ["you", "her"], "hello")
        with capture_traces() as traces, epsagon.trace("mailing"), pytest.raises(smtplib.SMTPServerDisconnected):
            smtplib.SMTP().sendmail("me", ["you", "her"], "hello")
    finally:
        smtp.uninstrument()
    event = traces[0]["events"][0]
    assert (event["resource"]["type"], event["resource"]["metadata"]) == ("smtp", {"recipients": "2"})
    assert event["exception"]["type"] == "SMTPServerDisconnected"
    assert smtplib.SMTP.sendmail is original


def test_trace_of_the_docs_continues_its_caller_and_tells_what_failed() -> None:
    handled = module_in("adding-an-instrumentation.md", 1).handled
    shared_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with capture_traces() as traces:
        assert handled(str.upper, "orders", "c-17", {"traceparent": f"00-{shared_id}-00f067aa0ba902b7-01"}) == "C-17"
        with pytest.raises(TypeError):
            handled(str.upper, "orders", 17, {})
    first, second = (trace["events"][-1] for trace in traces)
    assert first["resource"]["metadata"]["http_trace_id"] == shared_id
    assert (first["error_code"], second["error_code"], second["exception"]["type"]) == (0, 2, "TypeError")


def test_format_of_the_docs_writes_lines_that_share_a_request() -> None:
    lines = module_in("adding-a-format.md")
    destination = Destination("lines+http://localhost", "secret", 1.0)
    envelope = lines.LINES.envelope({"app_name": "shop"}, "python")
    events = [b'{"id":"1"}', b'{"id":"2"}']
    body = envelope.body(FittedTrace(bytes(16), events, 0, []))
    assert len(body) == envelope.size_bytes + sum(map(len, events)) + 1
    parcels = [Parcel(bytes([number] * 16), destination, body) for number in range(3)]
    assert lines.LINES.shared(parcels) == 3
    post = lines.LINES.post(parcels)
    assert post.url == "http://localhost"
    assert [orjson.loads(line)["events"] for line in post.body.splitlines()] == [[{"id": "1"}, {"id": "2"}]] * 3


def test_rule_of_the_docs_keeps_the_names_that_it_is_for() -> None:
    rule = module_in("adding-a-sampler.md")
    names = ["checkout", "checkout/pay", "browse"]
    assert [rule.threshold(Seen(name, False, 1.0, 0), "checkout") for name in names] == [ALWAYS, ALWAYS, ALL]
