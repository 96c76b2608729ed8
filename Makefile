# vidxfer: bare `make` lists what there is. Everything runs in .venv, which `make install` creates.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.vidxfer-installed

.PHONY: help
help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PYTHON=python3.12 (for install), ARGS='-k cache -x' (for test)."

.PHONY: install
install: $(STAMP)  ## create .venv and install vidxfer in it, with pinned versions; a repeat does nothing

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "vidxfer needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo "Install a newer Python and name it: make install PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python -a -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --no-input --quiet --upgrade pip
	$(BIN)/python -m pip install --no-input -c constraints.txt -e ".[dev]"
	@touch $@

.PHONY: demo
demo: $(STAMP)  ## the whole path on a small generated video set, ending in a table; a repeat reuses what is there
	$(BIN)/vidxfer data toy demo
	$(BIN)/vidxfer plan --dataset ssv2 --root demo/ssv2 --model demo/clip --cache demo/zarr
	$(BIN)/vidxfer extract --dataset ssv2 --root demo/ssv2 --model demo/clip --cache demo/zarr
	$(BIN)/vidxfer train --cache demo/zarr --recipe probe --run demo/runs/probe
	$(BIN)/vidxfer train --cache demo/zarr --recipe dist-toy --run demo/runs/dist
	$(BIN)/vidxfer train --cache demo/zarr --recipe dist-toy --run demo/runs/online --online --set epochs=1 --set warmup_epochs=0
	$(BIN)/vidxfer evaluate --cache demo/zarr --run demo/runs/dist
	$(BIN)/vidxfer compare demo/runs/probe demo/runs/dist demo/runs/online --cache demo/zarr

.PHONY: clean-demo
clean-demo:  ## delete the demo's videos, cache and runs
	rm -rf demo

.PHONY: test
test: $(STAMP)  ## install, then run all tests
	$(BIN)/python -m pytest $(ARGS)

.PHONY: golden
golden: $(STAMP)  ## only the tests against numbers from the official modules
	$(BIN)/python -m pytest -k golden $(ARGS)

.PHONY: check
check: $(STAMP)  ## lint, format and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .typings/vidxfer/pipeline .typings/vidxfer/stages .typings/vidxfer/cli

.PHONY: fix
fix: $(STAMP)  ## let ruff repair lint and format, and write the generated parts of the documents anew
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tests/test_house_docs.py
