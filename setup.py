"""Builds the compiled modules. All else about the package stands in pyproject.toml."""

import os
import sys
import sysconfig

from setuptools import Extension, setup

# PyPy and free-threaded builds have no stable ABI of CPython 3.11; they take the pure-Python ring and trimmer.
HAS_NO_STABLE_ABI = sys.implementation.name != "cpython" or bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
PURE = os.environ.get("EPSAGON_FAST_PURE") == "1" or HAS_NO_STABLE_ABI
# A build for one Python version instead of all, to measure what the stable ABI costs.
STABLE_ABI = os.environ.get("EPSAGON_FAST_STABLE_ABI", "1") == "1"
# A mistake in C is to end the process, not to give it away: what is written beyond an array is noticed, and what the
# loader writes once stays read-only. Each is what the compilers of all platforms but Windows know; where the C library
# has no checked functions _FORTIFY_SOURCE means nothing. Undefined first, since some compilers set another value.
HARDENED = ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
GUARDED = ["-fstack-protector-strong"]
# A push has no array but a trace's id, and takes 4 % longer with a guard.
GUARDED_BUT_IDS = ["-fstack-protector", "--param=ssp-buffer-size=17"]
READ_ONLY = ["-Wl,-z,relro,-z,now,-z,noexecstack"]
# Some linkers leave the C library out where a module calls nothing of it, but by its name wheels for glibc and for musl
# are told apart.
LINKING = ["-Wl,--no-as-needed", *READ_ONLY] if sys.platform == "linux" else []


# Debug information makes a build half as long again; CFLAGS=-g asks for it.
NO_DEBUG = [] if "-g" in os.environ.get("CFLAGS", "").split() else ["-g0"]


def extension(name: str, source: str, guard: list[str] = GUARDED) -> Extension:
    return Extension(
        name,
        [source],
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else [],
        py_limited_api=STABLE_ABI,
        extra_compile_args=["-O3", "-fno-strict-aliasing", "-Wno-unreachable-code", *NO_DEBUG, *HARDENED, *guard],
        extra_link_args=LINKING,
    )


def compiled() -> list[Extension]:
    from Cython.Build import cythonize

    return cythonize(
        [
            # First what takes longest, as several are built at once.
            extension("epsagon_fast.producer._fast_path", "_ext/producer/_fast_path.pyx"),
            extension("epsagon_fast.collector.assembling._feeding", "_ext/collector/_feeding.pyx"),
            extension("epsagon_fast.collector.formats._plain", "_ext/collector/_plain.pyx"),
            extension("epsagon_fast.masking._search", "_ext/masking/_search.pyx"),
            # Compiled as it stands: the same lines, but not interrupted in between.
            extension("epsagon_fast.producer._entering", "epsagon_fast/producer/entering.py"),
            extension("epsagon_fast.queue._ring", "_ext/queue/_ring.pyx", GUARDED_BUT_IDS),
            extension("epsagon_fast.queue._spawn", "_ext/queue/_spawn.pyx"),
            extension("epsagon_fast.trimming._compiled", "_ext/trimming/_compiled.pyx"),
        ],
        language_level=3,
        # What stands in annotations is for readers and mypy.
        compiler_directives={"annotation_typing": False},
    )


setup(
    ext_modules=[] if PURE else compiled(),
    options={
        "build_ext": {"parallel": os.cpu_count()},
        **({"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI and not PURE else {}),
    },
)
