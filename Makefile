# Two commands do everything on a machine that has python3, make and git: `make demo` and `make test`.
# PYTHON=python3.12 picks an interpreter; each version has a virtual environment of its own.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifeq ($(VERSION),)
$(error PYTHON must name a Python 3.11 or later that runs, but is $(PYTHON))
endif
VENV ?= .venv$(if $(filter-out 3.11,$(VERSION)),-$(VERSION))
BIN := $(VENV)/bin
# A file's tests share what they have made. In order of names: the last files are short, so that both processes end alike.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

# Tests check every annotation, which jaxtyping compiles into each module: without kept bytecode, every process does so.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo bench test quick quick-types quick-tests test-tpu test-gpu test-page drill lint check fix coverage clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python experiments/demo.py

bench: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python experiments/bench.py

test: check
	$(BIN)/python -m pytest $(PARALLEL)

# Shows in about a minute and a half whether a change broke something: linter, the package's types at the same time as
# all tests but those marked slow.
quick: lint
	$(MAKE) --no-print-directory --jobs 2 quick-types quick-tests

quick-types: $(VENV)/installed
	$(BIN)/basedpyright --pythonpath $(BIN)/python siren_rope_jax

quick-tests: $(VENV)/installed
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not tpu and not gpu and not page and not drill'

# Uses an environment of its own: with the TPU library installed, jax looks for a TPU first.
test-tpu:
	$(MAKE) VENV=$(VENV)-tpu $(VENV)-tpu/installed
	$(VENV)-tpu/bin/pip install --quiet --constraint constraints.txt --editable '.[tpu]'
	JAX_PLATFORMS=cpu $(VENV)-tpu/bin/python -m pytest -m tpu

test-gpu: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cuda]'
	$(BIN)/python -m pytest -m gpu

# Opens a report's page in headless Chromium, which must be installed: `apt-get install chromium`, or Google Chrome.
test-page: $(VENV)/installed
	$(BIN)/python -m pytest -m page

# Kills, starves and corrupts real trainings, of one process and of four; about 20 minutes on two cores.
drill: $(VENV)/installed
	$(BIN)/python -m pytest -m drill tests/drills

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: lint
	$(BIN)/basedpyright --pythonpath $(BIN)/python

fix: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Lists the lines that no test runs.
coverage: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt pytest-cov
	$(BIN)/python -m pytest $(PARALLEL) --cov=siren_rope_jax --cov-report=term-missing:skip-covered

clean:
	rm -rf .venv* runs .pytest_cache .ruff_cache .hypothesis build *.egg-info
