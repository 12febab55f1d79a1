# `make demo` and `make test` each work alone on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO := $(BIN)/ragline --data-dir .ragline/demo

.PHONY: demo test check soak bench bench-peers docs clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) -e ".[dev]"
	touch $@ $(VENV)/.installed

demo: $(VENV)/.installed  ## Ingests examples/corpus and asks three questions, offline once the model is there.
	$(DEMO) ingest examples/corpus
	$(DEMO) ask "How often are signing keys rotated?"
	$(DEMO) ask "What does error code E09 mean on the TW-40?"
	$(DEMO) ask "How long do old and new keys overlap since January 2025?"

test: $(VENV)/.installed-dev  ## Every test but the soak.
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev  ## Lint, formatting, types, layering.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.installed-dev  ## The long proofs: about an hour.
	$(BIN)/python -m pytest -m soak --timeout 7200

docs: $(VENV)/.installed  ## Writes the settings reference from the code.
	$(BIN)/python -m ragline.settings_reference > docs/reference/settings.md

clean:
	rm -rf $(VENV) .ragline build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
