# Every target makes what it needs: a virtual environment from the lock file, then its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Nothing may come late in it, so it has the machine to itself.
PUNCTUAL := tests/kafka/test_differential.py

.PHONY: setup run up test check lint lock bench clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python >= 3.11, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.lock | cut -d' ' -f1)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY)
	$(BIN)/omnimargin run scenarios/march_2020.toml --report runs/march_2020.html

up: $(READY)
	$(BIN)/omnimargin up

test: $(READY)
	$(BIN)/python -m pytest -q --numprocesses auto --ignore tests/kafka
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --ignore $(PUNCTUAL) tests/kafka
	$(BIN)/python -m pytest -q $(PUNCTUAL)

check: lint test

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --group dev pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) runs
