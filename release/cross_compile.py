"""Compile and link the extensions for platforms that this machine is not; nothing is run, and nothing is kept.

`pip install ziglang cython`, then `python release/cross_compile.py`. It finds what would not compile there; only the
runners of .github/workflows/wheels.yml find what would not work.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1]
LINUX, MACOS = "-Wl,--no-as-needed", "-Wl,-undefined,dynamic_lookup"
TARGETS = {
    "x86_64-linux-gnu.2.17": LINUX,
    "aarch64-linux-gnu.2.17": LINUX,
    "x86_64-linux-musl": LINUX,
    "aarch64-linux-musl": LINUX,
    "x86_64-macos": MACOS,
    "aarch64-macos": MACOS,
}
OPTIONS = ["-shared", "-fPIC", "-O3", "-Wall", "-Wno-unreachable-code", "-DPy_LIMITED_API=0x030B0000"]


def main() -> int:
    """Compile each module for each target; return 1 if one fails."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="epsagon-cross-") as place:
        for source in sorted(SOURCES.glob("_ext/*/*.pyx")):
            c_file = Path(place, f"{source.stem}.c")
            run("cython", "-3", str(source), "-o", str(c_file))
            for target, linking in TARGETS.items():
                # This Python's headers; those of a build for the target differ in nothing that the modules use.
                headers = [f"-I{sysconfig.get_path('include')}", f"-I{source.parent}"]
                made = str(c_file.with_suffix(f".{target}.so"))
                done = run("ziglang", "cc", "-target", target, *OPTIONS, *headers, linking, str(c_file), "-o", made)
                failures += done.returncode != 0
                print(f"{target:24} {source.stem:10} {'failed' if done.returncode else 'ok'}", flush=True)
    return min(failures, 1)


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program that is a Python module."""
    return subprocess.run([sys.executable, "-m", module, *arguments])


if __name__ == "__main__":
    sys.exit(main())
