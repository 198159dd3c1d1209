# The one way to run everything. `make demo` and `make test` need Python >= 3.11 and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

# Where an fsync is free, if there is room: the tests make tens of thousands.
MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 8000000 { print $$6 }')
TESTS := $(if $(MEMORY),PYTEST_DEBUG_TEMPROOT=$(MEMORY)) $(PYTEST)

.PHONY: help setup demo fmt check test test-all soak bench docs clean

help:
	@echo "make setup     build $(VENV) with the command batchrunner in it"
	@echo "make demo      a real batch, killed with SIGKILL, resumed, compared"
	@echo "make check     format, lint, types"
	@echo "make test      all tests but the soak (about twenty minutes)"
	@echo "make test-all  make check, make test and make soak"
	@echo "make soak      2 million rows under SIGKILL, on disk and on S3, and longer sweeps (over an hour)"
	@echo "make bench     the benchmarks; writes benchmarks/results/ and benchmarks/README.md"
	@echo "make docs      write docs/reference from the code"

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

test: setup
	$(TESTS) tests --durations 20

test-all: check test soak

soak: setup
	$(TESTS) tests -m soak --timeout 7200 -v

bench: setup
	$(BIN)/python -m benchmarks

docs: setup
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .demo .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
