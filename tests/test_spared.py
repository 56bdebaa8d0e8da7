"""What a collector is spared is there for who asks. Each check runs in a Python of its own."""

import inspect
import os
import subprocess
import sys

import pytest
from waiting import TIMEOUT_S

from epsagon_fast.collector.spared import FLAGS, FOR_ORJSON
from epsagon_fast.queue.launch import OPTIONS

ROOT = __file__.rpartition("/tests/")[0]


def run(code: str) -> str:
    paths = [path for path in sys.path if path.endswith("site-packages")]
    head = f"import sys; sys.path += {[*paths, ROOT]!r}\nimport epsagon_fast.collector.__main__\n"
    # The pure-Python ring needs ctypes.
    env = {name: value for name, value in os.environ.items() if name != "EPSAGON_FAST_IMPL"}
    command = [sys.executable, *OPTIONS, "-c", head + code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout


def test_the_flags_are_those_of_inspect() -> None:
    assert {name: getattr(inspect, name) for name in FLAGS} == FLAGS


@pytest.mark.parametrize("name", [*FOR_ORJSON, "ast", "dis", "platform", "linecache"])
def test_a_collector_serves_without(name: str) -> None:
    code = f"print({name!r} in sys.modules, *[type(sys.modules[name]).__name__ for name in ('inspect', 'traceback')])"
    assert run(code) == "False StandIn StandIn\n"


def test_who_imports_them_later_gets_the_modules_themselves() -> None:
    code = """
import inspect as early
import dataclasses, uuid, inspect
@dataclasses.dataclass
class Point:
    x: int
print(dataclasses.asdict(Point(1)), uuid.UUID(int=1).int, early.signature(Point), inspect.getmodule(Point) is not None)
import inspect
print(inspect is early, bool(inspect.__file__))
"""
    assert run(code) == "{'x': 1} 1 (x: int) -> None True\nFalse True\n"


def test_exceptions_are_told_whether_or_not_traceback_was_imported() -> None:
    code = """
import io, logging
told = io.StringIO()
logging.basicConfig(stream=told)
def fail():
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("oops")
fail()
from epsagon_fast.collector import spared
spared.import_now()
sys.meta_path.clear()
fail()
print(told.getvalue().count("Traceback"), told.getvalue().count("ZeroDivisionError: division by zero"))
import traceback
print(type(traceback).__name__)
"""
    assert run(code) == "2 2\nmodule\n"
    assert run(code.replace("fail()\nfrom", "from")) == "1 1\nmodule\n"


def test_what_is_needed_later_is_there_when_its_files_are_gone() -> None:
    code = """
from epsagon_fast.collector import spared
from epsagon_fast.collector.sending.exchange import Pools
spared.import_now()
sys.meta_path.clear()
from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.measuring.exporting import Exporter
from epsagon_fast.collector.parcel import Destination
from types import SimpleNamespace
spoken = Destination("otlp+http://127.0.0.1:1/elsewhere", "t", 1.0)
print(format_for(spoken).name)
Exporter(-1, "").begin_last(lambda: [SimpleNamespace(destination=spoken)])
"""
    assert run(code) == "otlp\n"


def test_orjson_still_encodes_what_a_collector_has() -> None:
    code = "import orjson; print(orjson.dumps({'a': [1, 2.5, 'b', None, True]}).decode())"
    assert run(code) == '{"a":[1,2.5,"b",null,true]}\n'
