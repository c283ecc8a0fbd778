# Two commands need no other set-up than Python 3.11 and make:
#   make demo    runs a notebook, kills its kernel half-way, runs it again and shows what was replayed
#   make test    lint, types and the whole test suite
#
# Stamps under .make/ keep the second time quick: an environment is made again only when pyproject.toml changes.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMPS := .make
# xdist workers. A worker waits for kernels and browsers a part of its time: three keep two cores busy, more only slow each other.
JOBS   ?= 3
PYTEST := $(BIN)/python -m pytest
# A notebook opened by the tests must not see the settings of whoever runs them.
TEST_ENV := JUPYTER_PLATFORM_DIRS=1 PYDEVD_DISABLE_FILE_VALIDATION=1 MPLBACKEND= DURABLE_NB_STORE= DURABLE_NB_EXECUTION=
# Tests edit modules faster than the clock of compiled files ticks, so that kernels must write none of these; our own code
# is compiled once before, since each test starts kernels of its own.
TEST_ENV += PYTHONDONTWRITEBYTECODE=1
COMPILE  := $(BIN)/python -m compileall -q durable_nb tests

# What an install copies out of the tree, also an editable one: the kernelspec and the badge for JupyterLab.
DATA := $(shell find share durable_nb/widgets/labextension -type f 2>/dev/null)

.PHONY: help demo test quick lint format bench load soak fidelity lab build clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#  *\(make .*\)/\1/p' $(MAKEFILE_LIST)
	@echo "make quick   unit, property and conformance tests only"
	@echo "make lint    ruff and mypy"
	@echo "make bench   docs/performance.md, from timed benchmarks beside the neighbours"
	@echo "make load    the figures of docs/scale.md: workers on PostgreSQL beside DBOS, 40 minutes at most"
	@echo "make soak    everything that takes long: all crash points, many random notebooks"
	@echo "make fidelity  docs/fidelity.md, from a run of the whole corpus"
	@echo "make lab     JupyterLab in this environment"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# The demo needs less than the tests: two stamps, so that a first look does not wait for test tools.
$(STAMPS)/demo: pyproject.toml $(DATA) | $(BIN)/python
	@echo "Installing into $(VENV) (half a minute the first time)…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo]"
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/test: pyproject.toml $(DATA) | $(BIN)/python
	@echo "Installing into $(VENV) (a minute the first time)…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/demo

# Browser tests drive the system's Chromium.
$(STAMPS)/chromium:
	@mkdir -p $(STAMPS)
	@if [ -n "$$CHROMIUM" ] || command -v chromium >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	else \
	  echo "The browser tests need Chromium: install it (Debian: apt-get install chromium) or set CHROMIUM=/path/to/it." >&2; exit 1; \
	fi
	@touch $@

# Tests of a shared store start PostgreSQL themselves; they are skipped, and say so, where it is not installed.
$(STAMPS)/postgres:
	@mkdir -p $(STAMPS)
	@if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql >/dev/null \
	    || echo "PostgreSQL cannot be installed: the tests of a shared store are skipped"; \
	else \
	  echo "PostgreSQL is not installed (Debian: apt-get install postgresql): the tests of a shared store are skipped"; \
	fi
	@touch $@

# Hosts of tests are network namespaces: where they cannot be made, those tests are skipped and say why.
$(STAMPS)/hosts:
	@mkdir -p $(STAMPS)
	@if command -v ip >/dev/null && command -v unshare >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends iproute2 util-linux >/dev/null \
	    || echo "iproute2 cannot be installed: the tests with several hosts are skipped"; \
	fi
	@touch $@

# The type checker of the front end's JavaScript, where npm is there; the tests say so when they are skipped without.
$(STAMPS)/widgets: widgets/package-lock.json
	@mkdir -p $(STAMPS)
	@if command -v npm >/dev/null; then cd widgets && npm ci --silent --no-fund --no-audit; \
	else echo "npm is not installed: the types of the JavaScript are not checked"; fi
	@touch $@

demo: $(STAMPS)/demo
	$(BIN)/python demo/run_demo.py

test: $(STAMPS)/test $(STAMPS)/chromium $(STAMPS)/postgres $(STAMPS)/hosts $(STAMPS)/widgets lint
	@$(COMPILE)
	$(TEST_ENV) $(PYTEST) -n $(JOBS) --dist loadgroup -m "not soak" --benchmark-disable

quick: $(STAMPS)/test $(STAMPS)/postgres
	@$(COMPILE)
	$(TEST_ENV) $(PYTEST) -n $(JOBS) tests/unit tests/property tests/conformance

lint: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

format: $(STAMPS)/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The parts against the last saved run, then whole notebooks beside the neighbours: docs/performance.md.
bench: $(STAMPS)/test
	@$(COMPILE)
	$(TEST_ENV) DURABLE_NB_BENCH_SCALE=1 $(PYTEST) tests/benchmarks --benchmark-only --benchmark-autosave
	$(TEST_ENV) $(BIN)/python -m tests.benchmarks.report

# Workers on one PostgreSQL beside DBOS, with up to 100,000 finished executions in the tables: docs/scale.md and scale.json.
load: $(STAMPS)/test $(STAMPS)/postgres
	@$(COMPILE)
	$(TEST_ENV) $(BIN)/python -m tests.benchmarks.load --docs docs

soak: $(STAMPS)/test $(STAMPS)/chromium $(STAMPS)/postgres $(STAMPS)/hosts
	@mkdir -p out && rm -f out/evidence.jsonl
	@$(COMPILE)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[fuzz]" || echo "atheris is not there for this Python: coverage-guided fuzzing is left out"
	$(TEST_ENV) DURABLE_NB_SOAK=1 DURABLE_NB_EVIDENCE=$(CURDIR)/out/evidence.jsonl $(PYTEST) -n $(JOBS) --dist loadgroup -m "soak or not soak" --benchmark-disable
	$(BIN)/python -m tests.crash.report out/evidence.jsonl

fidelity: $(STAMPS)/test
	@$(COMPILE)
	$(TEST_ENV) $(BIN)/python -m tests.fidelity.report

lab: $(STAMPS)/test
	$(BIN)/jupyter lab --notebook-dir notebooks

build: $(STAMPS)/test
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(STAMPS) $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
