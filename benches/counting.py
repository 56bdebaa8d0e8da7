"""Counting instructions with callgrind: a busy machine changes nothing in them."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

# A function has a line for each source file whose code is in it, and the library stands in one of these lines.
LINE = re.compile(r"^\s*([\d,]+) \([ .\d]+%\)  (\S+:\S+)(?: \[(.*)\])?", re.MULTILINE)


def instructions(program: str, *words: str, within: str = "any") -> tuple[Counter[str], Counter[str]]:
    """Run Python code and return how many instructions it took within any(), by library and by C function.

    within: another builtin function, for what calls any() itself: each call turns the counting off or on.
    """
    need_valgrind()
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        tool = ["valgrind", "--tool=callgrind", f"--toggle-collect=builtin_{within}", f"--callgrind-out-file={out}"]
        subprocess.run([*tool, sys.executable, "-c", program, *words], check=True, capture_output=True)
        return counts_in(out)


def need_valgrind() -> None:
    """End the program if there is no valgrind."""
    if not shutil.which("valgrind"):
        sys.exit("this needs valgrind")


def counts_in(out: str) -> tuple[Counter[str], Counter[str]]:
    """Return the instructions in a file that callgrind has written, by library and by C function."""
    command = ["callgrind_annotate", "--auto=no", "--threshold=100", "--show=Ir", out]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [(named(where), library, int(count.replace(",", ""))) for count, where, library in LINE.findall(printed)]
    libraries = {function: Path(library).name.split(".")[0] for function, library, _ in found if library}
    by_library, by_function = Counter[str](), Counter[str]()
    for function, _, count in found:
        by_library[libraries.get(function, "")] += count
        by_function[function] += count
    return by_library, by_function


def show(title: str, counts: tuple[Counter[str], Counter[str]], times: int, most: int) -> None:
    """Print what `instructions` returned for something that was done so many times, the `most` largest of each."""
    whole = counts[0].total()
    print(f"\n{title}: {whole / times:,.0f} instructions")
    for found in counts:
        for key, count in found.most_common(most):
            print(f"  {count / times:8,.0f}  {count / whole:5.1%}  {key}", flush=True)


def named(where: str) -> str:
    """Return a function's name, without the file and the depth of a recursion."""
    return where.rpartition(":")[2].split("'")[0]
