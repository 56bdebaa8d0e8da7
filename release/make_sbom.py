"""Write which packages a user gets with the wheel, as a CycloneDX document beside it.

`python release/make_sbom.py [WHEEL]`, after make_wheel.py; by default the one wheel in wheelhouse/. It asks a fresh
environment that has nothing but the wheel and what that pulled in, so it says what an installer chose on this day, not
what pyproject.toml allows.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[1]
WHEELHOUSE = SOURCES / "wheelhouse"
# What any user gets; an extra adds to it.
EXPECTED = {"orjson", "urllib3"}


def main() -> int:
    """Write the document and return the exit code."""
    (wheel,) = [*map(Path, sys.argv[1:])] or WHEELHOUSE.glob("*.whl")
    version = wheel.name.split("-")[1]
    path = wheel.with_name(f"epsagon_fast-{version}.cdx.json")
    with tempfile.TemporaryDirectory(prefix="epsagon-sbom-") as place:
        path.write_text(json.dumps(document(wheel, version, Path(place, "env")), indent=1) + "\n")
    print(f"{path.stat().st_size / 1024:8.0f} KiB  {path}")
    return 0


def document(wheel: Path, version: str, environment: Path) -> dict[str, Any]:
    """Return what a fresh environment holds once the wheel is installed. Raises CalledProcessError, or ValueError."""
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check", "install", wheel)
    program = Path(sys.executable).with_name("cyclonedx-py")
    options = ("--pyproject", SOURCES / "pyproject.toml", "--mc-type", "library", "--output-reproducible")
    made: dict[str, Any] = json.loads(run(program, "environment", *options, python))
    # pyproject.toml does not hold the version, since it stands in the package alone.
    subject = made["metadata"]["component"]
    subject |= {"version": version, "purl": f"pkg:pypi/{subject['name']}@{version}"}
    found = {part["name"] for part in made["components"]}
    if found != EXPECTED:
        raise ValueError(f"the wheel brings {sorted(found)}, not {sorted(EXPECTED)}")
    return made


def run(*command: object) -> str:
    """Return what a program prints; its errors are seen."""
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
