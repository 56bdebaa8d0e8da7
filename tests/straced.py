"""The system calls of a program, as strace tells them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def system_calls(program: str, folder: Path) -> str:
    """Run Python code in a folder, to a good end, and return the calls of its main thread, one a line.

    Of the compiled modules: their twins ask the kernel oftener. Where no process may be traced the test is skipped.
    """
    log = folder / "calls"
    command = ["strace", "-qq", "-o", str(log), sys.executable, "-c", program]
    env = {**os.environ, "EPSAGON_LAUNCH": "0", "EPSAGON_FAST_IMPL": ""}
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=60)
    except FileNotFoundError:
        assert not os.environ.get("CI"), "strace is not installed"
        pytest.skip("needs strace")
    if b"ptrace" in done.stderr:
        pytest.skip("no process may be traced here")
    assert done.returncode == 0, done.stderr
    return log.read_text()
