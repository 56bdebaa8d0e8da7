"""What is uploaded, without building the compiled modules again: `make wheel` builds and tries them."""

import email
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from fnmatch import fnmatch
from pathlib import Path

import pytest
import readme_renderer.markdown
from places import Place, until

from epsagon_fast import __version__, compiled
from epsagon_fast.backend import Backend

SOURCES = Path(__file__).parents[1]
PROJECT = tomllib.loads((SOURCES / "pyproject.toml").read_text())
PACKED = (".ci", ".github", "_ext", "benches", "docs", "epsagon_fast", "examples", "release", "tests")
SINGLE = (
    ".editorconfig",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "mkdocs.yml",
    "pyproject.toml",
    "setup.py",
)
# What is made here and stays here.
MADE = ("__pycache__", ".*_cache", ".hypothesis", "*.so", "*.pyc", "*.egg-info")
CYTHONIZED = [str(path.relative_to(SOURCES).with_suffix(".c")) for path in SOURCES.glob("_ext/*/*.pyx")]
# The one module whose compiled copy has the same source.
CYTHONIZED.append("epsagon_fast/producer/entering.c")
COMPILED = [
    str(path.relative_to(SOURCES / "_ext").with_suffix("")).replace("/", ".") for path in SOURCES.glob("_ext/*/*.pyx")
]

PYTHONS = ("cp311", "cp312", "cp313", "cp314", "cp315")


def run(*command: object, cwd: Path = SOURCES, **environment: str) -> str:
    """Return what a program of this environment prints; it must end well."""
    program = os.path.join(os.path.dirname(sys.executable), str(command[0]))
    line = [program, *map(str, command[1:])]
    done = subprocess.run(line, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{line}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources without what was made here, so that nothing is built into the tree that others work in."""
    place = tmp_path_factory.mktemp("sources")
    for name in PACKED:
        shutil.copytree(SOURCES / name, place / name, ignore=shutil.ignore_patterns(*MADE))
    for name in (*SINGLE, "MANIFEST.in", ".gitignore"):
        shutil.copy(SOURCES / name, place)
    return place


def built(copy: Path, kind: str, folder: Path) -> Path:
    """Build without compiled modules; return the one file that was made."""
    run("python", "-m", "build", kind, "--no-isolation", "--outdir", folder, copy, EPSAGON_FAST_PURE="1")
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files in the sdist, by their path below its one folder."""
    with tarfile.open(built(copy, "--sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name.partition("/")[2]: file.read() for name, file in files.items() if file}


@pytest.fixture(scope="module")
def metadata(sdist: dict[str, bytes]) -> Message:
    """What the index shows."""
    return email.message_from_bytes(sdist["PKG-INFO"])


@pytest.fixture(scope="module")
def pure_wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel without compiled modules."""
    return built(copy, "--wheel", tmp_path_factory.mktemp("wheel"))


@pytest.mark.parametrize(
    ("platform", "arch", "kinds"),
    [
        ("linux", "x86_64", ("manylinux", "musllinux")),
        ("linux", "aarch64", ("manylinux", "musllinux")),
        ("macos", "x86_64", ("macosx",)),
        ("macos", "arm64", ("macosx",)),
    ],
)
def test_each_platform_gets_its_wheels_and_no_free_threaded_or_pypy_one(
    platform: str, arch: str, kinds: tuple[str, ...]
) -> None:
    said = run("cibuildwheel", "--print-build-identifiers", "--platform", platform, "--archs", arch)
    identifiers = said.split()
    assert {f"{python}-{kind}_{arch}" for python in PYTHONS[:3] for kind in kinds} <= set(identifiers)
    assert all(fnmatch(identifier, "cp3??-*") for identifier in identifiers)


def test_one_wheel_fits_all_later_pythons() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    setup = (SOURCES / "setup.py").read_text()
    assert '("Py_LIMITED_API", "0x030B0000")' in setup and '"py_limited_api": "cp311"' in setup


def test_the_sdist_holds_all_that_the_tests_need(sdist: dict[str, bytes]) -> None:
    folders = [path for name in PACKED for path in (SOURCES / name).rglob("*") if path.is_file()]
    needed = {str(path.relative_to(SOURCES)) for path in folders} | {*SINGLE}
    made_here = {name for name in needed if any(fnmatch(part, made) for part in name.split("/") for made in MADE)}
    assert needed - made_here - {*CYTHONIZED} <= set(sdist)


def test_the_sdist_holds_nothing_that_was_built(sdist: dict[str, bytes]) -> None:
    assert not {*CYTHONIZED} & set(sdist)
    assert not [name for name in sdist for made in MADE[:-1] if any(fnmatch(part, made) for part in name.split("/"))]


def test_the_version_stands_in_one_place(metadata: Message) -> None:
    assert metadata["Version"] == __version__
    holders = [
        path.name
        for path in (*(SOURCES / "epsagon_fast").rglob("*.py"), SOURCES / "setup.py", SOURCES / "pyproject.toml")
        if f'"{__version__}"' in path.read_text("utf-8")
    ]
    assert holders == ["version.py"]


def test_the_metadata_says_what_it_is(metadata: Message) -> None:
    assert (metadata["Name"], metadata["License-Expression"], metadata["License-File"]) == (
        "epsagon-fast",
        "MIT",
        "LICENSE",
    )
    classifiers = metadata.get_all("Classifier", [])
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} < {*classifiers}
    assert "Typing :: Typed" in classifiers
    links = dict(link.split(", ") for link in metadata.get_all("Project-URL", []))
    assert links.keys() == {"Source", "Documentation", "Changelog", "Issues"}
    assert all(link.startswith(links["Source"]) for link in links.values())


def test_users_do_not_need_what_developers_need(metadata: Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[^\w-]", line)[0] for line in required} == {"orjson", "urllib3"}


def test_the_readme_renders(metadata: Message) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    problems = io.StringIO()
    page = readme_renderer.markdown.render((SOURCES / "README.md").read_text("utf-8"), stream=problems)
    assert page and not problems.getvalue()
    assert "<h1" in page and "<table>" in page and "&lt;" not in page


def test_stubs_say_what_the_compiled_modules_have(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    # Constants that a module imports from protocol.py, and what Cython adds, are nobody's interface.
    allowed.write_text(r"epsagon_fast\.\w+\._\w+\.(__test__|[A-Z_]+)")
    modules = [f"epsagon_fast.{name}" for name in COMPILED]
    # Whether a class can be combined with others of its kind has no notation in a stub without another dependency.
    options = ["--ignore-disjoint-bases", "--ignore-unused-allowlist", "--allowlist", str(allowed)]
    run("python", "-m", "mypy.stubtest", *options, *modules)


def test_without_compiled_modules_the_wheel_is_for_every_machine(pure_wheel: Path) -> None:
    assert pure_wheel.name == f"epsagon_fast-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(pure_wheel) as archive:
        names = archive.namelist()
    assert "epsagon_fast/py.typed" in names
    assert not [name for name in names if name.endswith((".so", ".pyx", ".c", ".h")) or "test_" in name]


def test_without_compiled_modules_a_process_is_traced_and_told_that_it_is_slower(
    pure_wheel: Path, backend: Backend, place: Place
) -> None:
    with zipfile.ZipFile(pure_wheel) as archive:
        archive.extractall(place.scratch / "installed")
    place.env |= {"PYTHONPATH": str(place.scratch / "installed"), "EPSAGON_DEBUG": "1"}
    said = place.run(
        """
import logging
logging.basicConfig(level=logging.DEBUG)
import epsagon_fast as epsagon
for number in range(2):
    with epsagon.trace("work"):
        epsagon.label("number", number)
""",
        stderr=subprocess.STDOUT,
    )
    assert said.count("DEBUG:epsagon_fast:the ring is in plain Python") == 1
    until(lambda: backend.store.counts()["traces"] == 2, lambda: f"the traces arrive; {place.log()}")
    said = place.command("status").stdout
    assert said.count("reference (No module named") == len(compiled.MODULES) and "does the same, slower" in said


def test_workflows_have_no_known_weakness() -> None:
    run("zizmor", "--offline", "--no-progress", "--persona", "pedantic", ".github")


def test_workflows_run_the_tests_and_need_no_secret() -> None:
    workflows = {path.stem: path.read_text() for path in (SOURCES / ".github" / "workflows").glob("*.yml")}
    verbs = {*re.findall(r"\bmake [a-z].*", workflows["ci"])}
    assert {"make lint", "make test PYTEST_ARGS='-m \"not root\"'", "make test PYTEST_ARGS='-m root'"} <= verbs
    assert "id-token: write" in workflows["wheels"] and "-arm" in workflows["wheels"]
    for text in workflows.values():
        assert "secrets." not in text
        # A tag can be moved to another commit after we have looked; the comment is for people.
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", used) for used in re.findall(r"uses: (.*)", text))


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements", ("backend", "demo", "test", "release", "dev")),
        ("release", ("release",)),
        ("demo", ("backend", "demo")),
    ],
)
def test_all_that_is_needed_is_locked_with_its_hash(lock: str, extras: tuple[str, ...]) -> None:
    wanted = [line for extra in extras for line in PROJECT["project"]["optional-dependencies"][extra]]
    names = {re.split(r"[^\w-]", line)[0].lower() for line in [*PROJECT["project"]["dependencies"], *wanted]}
    locked = (SOURCES / ".ci" / f"{lock}.txt").read_text()
    pinned = re.findall(r"^([\w-]+)(?:\[.*\])?==.*\\\n    --hash=sha256:", locked, re.M)
    assert len(pinned) == len(re.findall(r"^\w", locked, re.M))
    assert names - {"epsagon-fast"} <= {*pinned}, "run `make lock`"


def test_what_the_demo_installs_is_of_the_tests_versions() -> None:
    # So `make demo` and `make test` share an environment, and neither changes what the other has installed.
    demo, tests = (
        {*re.findall(r"^\S+==\S+", (SOURCES / ".ci" / f"{lock}.txt").read_text(), re.M)}
        for lock in ("demo", "requirements")
    )
    assert demo <= tests, "run `make lock`"


def test_what_builds_a_wheel_is_bounded_from_above() -> None:
    assert all("<" in requirement for requirement in PROJECT["build-system"]["requires"])
    assert sorted(PROJECT["dependency-groups"]["build"]) == sorted(PROJECT["build-system"]["requires"])


ELF = [part for part in compiled.MODULES if sys.platform == "linux" and compiled.implementation(part) == "compiled"]
PT_DYNAMIC, PT_STACK, PT_RELRO, EXECUTABLE = 2, 0x6474E551, 0x6474E552, 1
DT_NULL, DT_FLAGS, BIND_NOW = 0, 30, 8


@pytest.mark.parametrize("part", ELF)
def test_compiled_module_notices_what_is_written_beyond_an_array_and_can_be_led_nowhere(part: str) -> None:
    origin = sys.modules[compiled.MODULES[part]].__file__
    assert origin is not None
    content = Path(origin).read_bytes()
    # elf(5), of 64 bits: a program header is type, flags, offset in the file, two addresses, size in the file, ...
    at, each, count = (*struct.unpack_from("=Q", content, 32), *struct.unpack_from("=HH", content, 54))
    headers = {
        fields[0]: fields for n in range(count) for fields in [struct.unpack_from("=II4Q", content, at + n * each)]
    }
    assert PT_RELRO in headers and not headers[PT_STACK][1] & EXECUTABLE
    _, _, offset, _, _, size = headers[PT_DYNAMIC]
    dynamic = dict(struct.iter_unpack("=QQ", content[offset : offset + size]))
    assert dynamic[DT_FLAGS] & BIND_NOW
    assert b"__stack_chk_fail" in content
