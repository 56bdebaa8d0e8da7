"""What imports cost in instructions, counted by callgrind's cousin cachegrind: beyond those of the bare interpreter.

python benches/import_cost.py
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from epsagon_fast.queue.launch import OPTIONS

ROOT = Path(__file__).parents[1]
INIT = "import epsagon_fast; epsagon_fast.init(token='t', collector_url='http://127.0.0.1:1')"
COLLECTOR = "import gc; gc.disable(); from epsagon_fast.collector.__main__ import serve_folder"
# What is counted, with the interpreter's options.
STATEMENTS = {
    "import orjson, dataclasses": OPTIONS[:2],
    "import epsagon_fast": OPTIONS[:2],
    INIT: OPTIONS[:2],
    COLLECTOR: OPTIONS,
}
REFS = re.compile(r"I +refs: +([\d,]+)")


def instructions(statement: str, options: tuple[str, ...]) -> int:
    """Return how many instructions a Python takes that executes a statement and ends at once."""
    paths = [*(path for path in sys.path if path.endswith("site-packages")), str(ROOT)]
    code = f"import os, sys; sys.path += {paths!r}\n{statement}\nos._exit(0)"
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command = [sys.executable, *options, "-c", code]
    # Once before, so that the bytecode is there.
    subprocess.run(command, check=True)
    done = subprocess.run([*tool, *command], capture_output=True, text=True, check=True)
    found = REFS.search(done.stderr)
    assert found, done.stderr
    return int(found[1].replace(",", ""))


def main() -> None:
    if not shutil.which("valgrind"):
        sys.exit("this needs valgrind")
    bare = instructions("", OPTIONS[:2])
    print(f"{bare / 1e6:6.1f} million: the bare interpreter, which the others have less")
    for statement, options in STATEMENTS.items():
        print(f"{(instructions(statement, options) - bare) / 1e6:6.1f} million: {statement}", flush=True)


if __name__ == "__main__":
    main()
