# Each target makes its own environment in .venv when that is missing. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 3

.PHONY: demo test check lint types docs slow gpu clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(STAMP)  ## poison, purify and evaluate the embedded sample
	$(BIN)/zipbatch demo --out demo-out

test: $(STAMP)  ## the default tests: CPU, offline; JOBS processes, of which one runs the tests with Ray and mostly waits
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup --no-loadscope-reorder

slow: $(STAMP)  ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

gpu:  ## the tests that need a GPU, with whatever is installed, and their figures in gpu-report.json
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m tests.gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## the site, built from README.md and docs/ into site/; a link to nowhere fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

check: lint types docs test  ## what CI runs

clean:
	rm -rf $(VENV) demo-out build dist site .mypy_cache .ruff_cache .pytest_cache
