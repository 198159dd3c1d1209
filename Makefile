# The one way to run everything. `make demo` and `make test` need Python >= 3.11 and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Where an fsync is free, if there is room: the tests make tens of thousands.
MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 8000000 { print $$6 }')
TESTS := $(if $(MEMORY),PYTEST_DEBUG_TEMPROOT=$(MEMORY)) $(BIN)/python -m pytest

# For tests that share nothing. Those on Ray share one Ray: they stay in one process, or in two that may run side by side.
BESIDE_EACH_OTHER := --numprocesses logical --maxprocesses 4 --dist worksteal

.PHONY: help setup demo fmt check test test-all soak bench wheel docs clean
.PHONY: test-local test-smoke test-browser test-ray test-ray-acceptance test-ray-integration test-s3 test-sweeps

help:
	@echo "make setup     build $(VENV) with the command batchrunner in it"
	@echo "make demo      a real batch, killed with SIGKILL, resumed, compared"
	@echo "make check     format, lint, types, unit tests (under a minute)"
	@echo "make test      make check, all on the local engine, and a batch killed and resumed on Ray and S3 (10 minutes)"
	@echo "make test-all  make test, and test-browser, test-ray, test-s3, test-sweeps, which may run side by side: make -j4 test-all"
	@echo "make soak      2 million rows under SIGKILL, on disk and on S3, and longer sweeps (over an hour)"
	@echo "make bench     the benchmarks; writes benchmarks/results/ and benchmarks/README.md"
	@echo "make wheel     build dist/batchrunner-*.whl"
	@echo "make docs      write docs/reference from the code, and build the site into site/"

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: setup
	$(BIN)/python demo/demo.py

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TESTS) tests/unit --tier unit $(BESIDE_EACH_OTHER)

test: check test-local test-smoke

test-all: test test-browser test-ray test-s3 test-sweeps

# Half of their time they wait for processes: two for each core of a small machine.
test-local: setup
	$(TESTS) tests --tier local --numprocesses 4 --dist worksteal --durations 20

test-smoke: setup
	$(TESTS) tests --tier smoke

test-browser: setup
	$(TESTS) tests --tier browser

test-ray: test-ray-acceptance test-ray-integration

test-ray-acceptance: FOLDERS := tests/acceptance
test-ray-integration: FOLDERS := tests --ignore tests/acceptance
test-ray-acceptance test-ray-integration: setup
	$(TESTS) $(FOLDERS) --tier ray --durations 20

test-s3: setup
	$(TESTS) tests --tier s3 $(BESIDE_EACH_OTHER) --durations 20

test-sweeps: setup
	$(TESTS) tests --tier sweep $(BESIDE_EACH_OTHER) --durations 20

soak: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,test-models]'
	$(TESTS) tests --tier soak --timeout 7200 -v

bench: setup
	$(BIN)/python -m benchmarks

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

docs: setup
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

clean:
	rm -rf $(VENV) dist site .demo .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
