# `make demo` and `make test` each work alone on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO := $(BIN)/ragline --data-dir .ragline/demo

.PHONY: demo test check soak bench bench-peers named-data docs clean

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
	@echo; $(DEMO) ask "How often are the node keys rotated?"
	@echo; $(DEMO) ask "Can an instrument that has reported E09 be dried out and used again?"
	@echo; $(DEMO) ask "For how many days are the old and the new key both accepted since January 2025?"

test: $(VENV)/.installed-dev  ## Every test but the soak.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-dev  ## Lint, formatting, types, layering.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.installed-dev  ## The long proofs: an hour and a half.
	$(BIN)/python -m pytest -m soak --timeout 7200

# DATA is a folder of labelled sets in BEIR layout, one folder each (cranfield among them): see benchmarks/README.md.
# `python -m ragline.bench --help` lists more cases: remote, stream, batching, ...
CASES ?= quality ingest search lexical start
bench: named-data $(VENV)/.installed-dev  ## Measures ragline: make bench DATA=FOLDER [CASES=...]
	$(BIN)/python -m ragline.bench $(CASES) --data "$(DATA)" --reference benchmarks/reference/retrieval-quality.json

bench-peers: named-data $(VENV)/.installed-dev  ## Measures ragline beside others: make bench-peers DATA=FOLDER
	$(BIN)/python benchmarks/peers.py --data "$(DATA)"

named-data:
	@test -d "$(DATA)" || { echo "name a folder of labelled sets: make $(MAKECMDGOALS) DATA=FOLDER"; exit 2; }

docs: $(VENV)/.installed  ## Writes the settings reference from the code.
	$(BIN)/python -m ragline.settings_reference > docs/reference/settings.md

clean:
	rm -rf $(VENV) .ragline build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
