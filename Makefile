# make demo, make test: each sets up .venv first when it is missing or older than the dependency lists or the C sources.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint setup lock

setup: .venv/.ready
	@$(BIN)/python -c 'import dataset.jpeg.codec' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .

.venv/.ready: pyproject.toml constraints.txt setup.py dataset/jpeg/sources.py dataset/jpeg/src $(wildcard dataset/jpeg/src/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Limbeck needs Python 3.10 or newer: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n auto

# The tested set, for every supported Python at once.
lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --all-extras --no-header --no-annotate \
		pyproject.toml --output-file constraints.txt
