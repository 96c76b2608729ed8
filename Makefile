# vidxfer: bare `make` lists what there is. Everything runs in .venv, which `make install` creates.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=
JOBS ?= 2
BIN := .venv/bin
STAMP := .venv/.vidxfer-installed

.PHONY: help
help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PYTHON=python3.12 (for install), ARGS='-k cache -x' and JOBS=2 processes (for test);"
	@echo "for reproduce: ROOT=folder of the data set (or VIDXFER_DATA), CACHE=folder, RUN=folder, TOY=1."

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
demo: $(STAMP)  ## the whole path on a small generated video set, ending in a table and two pages; a repeat reuses all
	$(BIN)/vidxfer data toy demo --difficulty easy
	$(BIN)/vidxfer plan --dataset ssv2 --root demo/ssv2 --model demo/clip --cache demo/zarr
	$(BIN)/vidxfer extract --dataset ssv2 --root demo/ssv2 --model demo/clip --cache demo/zarr --with-frames
	$(BIN)/vidxfer train --cache demo/zarr --recipe probe --run demo/runs/probe --set epochs=8 --set warmup_epochs=1
	$(BIN)/vidxfer train --cache demo/zarr --recipe frame-transformer --run demo/runs/frames --set epochs=8 --set warmup_epochs=1
	$(BIN)/vidxfer train --cache demo/zarr --recipe dist-toy --run demo/runs/dist --set epochs=8 --set warmup_epochs=1
	$(BIN)/vidxfer train --cache demo/zarr --recipe dist-toy --run demo/runs/online --online --set epochs=1 --set warmup_epochs=0
	$(BIN)/vidxfer evaluate --cache demo/zarr --run demo/runs/dist
	$(BIN)/vidxfer compare demo/runs/probe demo/runs/frames demo/runs/dist demo/runs/online --cache demo/zarr
	$(BIN)/vidxfer view --cache demo/zarr --out demo/view.html --codec int4
	$(BIN)/vidxfer report demo/runs/dist demo/runs/frames demo/runs/probe --cache demo/zarr --out demo/report.html --plots demo/plots

# A published result, from the data set to the table: the bill first, and every line goes on where it was stopped.
# TOY=1 walks the same lines on a small generated set in the same layout, in ./demo-k400 or ./demo-ssv2.
KIND = $(@:reproduce-%=%)
NAMED := $(VIDXFER_DATA)
ROOT ?= $(NAMED)
MODEL ?= ViT-B-16-quickgelu
RECIPE ?= dist-$(KIND)-b16-8f
CACHE ?= zarr/$(KIND)
RUN ?= runs/$(RECIPE)
ifdef TOY
ROOT = demo-$(KIND)/$(KIND)
MODEL = demo-$(KIND)/clip
RECIPE = dist-toy
CACHE = demo-$(KIND)/zarr
RUN = demo-$(KIND)/run
reproduce-k400: toy-k400
reproduce-ssv2: toy-ssv2
endif
# Exit code 3: done, with some videos refused and each of them named. Every copy of these data sets lacks a few.
PARTLY = done_or_partly() { echo "$$*"; "$$@" || [ $$? -eq 3 ]; }; done_or_partly

.PHONY: reproduce-k400 reproduce-ssv2
reproduce-k400:  ## DiST B/16 8+16 on Kinetics-400 as published, from ROOT to a table and a page; TOY=1: minutes, no data needed
reproduce-ssv2:  ## the same on Something-Something V2
reproduce-k400 reproduce-ssv2: override export VIDXFER_DATA = $(ROOT)
reproduce-k400 reproduce-ssv2: $(STAMP)
	$(BIN)/vidxfer plan --dataset $(KIND) --model $(MODEL) --cache $(CACHE) --test-views 3 --recipe $(RECIPE)
	@$(PARTLY) $(BIN)/vidxfer extract --dataset $(KIND) --model $(MODEL) --cache $(CACHE) --test-views 3
	$(BIN)/vidxfer cache verify --cache $(CACHE)
	$(BIN)/vidxfer train --cache $(CACHE) --recipe $(RECIPE) --run $(RUN)
	@$(PARTLY) $(BIN)/vidxfer evaluate --cache $(CACHE) --run $(RUN)
	$(BIN)/vidxfer reproduction --cache $(CACHE) --run $(RUN)
	$(BIN)/vidxfer report $(RUN) --cache $(CACHE) --out $(RUN)/report.html

.PHONY: toy-k400 toy-ssv2
toy-k400 toy-ssv2: $(STAMP)
	$(BIN)/vidxfer data toy demo-$(@:toy-%=%) --layout $(@:toy-%=%) --videos 1200 --difficulty easy

.PHONY: clean-demo
clean-demo:  ## delete the demos' videos, caches and runs
	rm -rf demo demo-k400 demo-ssv2

.PHONY: test
test: $(STAMP)  ## install, then run all tests, JOBS at a time
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

.PHONY: golden
golden: $(STAMP)  ## only the tests against numbers from the official modules
	$(BIN)/python -m pytest -k golden $(ARGS)

.PHONY: mutants
mutants: $(STAMP)  ## small semantic changes, one at a time: would the tests notice? an hour; ARGS='order.py mixing'
	$(BIN)/python tests/mutants/run.py $(ARGS)

.PHONY: bench
bench: $(STAMP)  ## seconds of a training step: DiST plain and fast, CLIP, reading; minutes; ARGS='--threads 1'
	$(BIN)/python tests/bench/bench_dist.py $(if $(QUICK),--rounds 1) $(ARGS)
	$(BIN)/python tests/bench/bench_heads.py $(if $(QUICK),--rounds 1) $(ARGS)
	$(BIN)/python tests/bench/bench_pooled.py $(if $(QUICK),--rounds 1) $(ARGS)
	$(BIN)/python tests/bench/bench_decode.py $(if $(QUICK),--rounds 1 --layers 1) $(ARGS)
	$(BIN)/python tests/bench/bench_paths.py $(if $(QUICK),--rounds 1 --clips 2 --videos 4) $(ARGS)
	$(BIN)/python tests/bench/bench_frames.py $(if $(QUICK),--rounds 1) $(ARGS)
	$(BIN)/python tests/bench/bench_decoders.py $(if $(QUICK),--rounds 1 --videos 2) $(if $(WRITE),--write docs/frames.md)
	@$(MAKE) --no-print-directory bench-cache

# Nothing is installed: `python3` has torch, and what else is missing lies in wheels/ (make wheels, with network).
MINUTES ?= 5
OUT ?= gpu
.PHONY: gpu
gpu:  ## what the GPU says: proofs and figures, from the source tree, in MINUTES=5; pages in OUT=gpu; ARGS='--small' on a CPU
	$(PYTHON) tests/bench/gpu.py --minutes $(MINUTES) --out $(OUT) $(ARGS)

.PHONY: wheels
wheels:  ## fetch into wheels/ what make gpu needs on a machine that has torch and no network
	$(PYTHON) tests/bench/gpu_wheels.py

CACHE_BENCH = $(if $(QUICK),--quick) $(if $(WRITE),--write docs/bench-cache.md)
.PHONY: bench-cache
bench-cache: $(STAMP)  ## readers of cached tokens, extraction, memory; minutes, 4 GB; QUICK=1: seconds; WRITE=1
	$(BIN)/python tests/bench/bench_cache_reader.py $(CACHE_BENCH)
	$(BIN)/python tests/bench/bench_extract.py $(CACHE_BENCH)
	$(BIN)/python tests/bench/bench_memory.py $(CACHE_BENCH)

.PHONY: check
check: $(STAMP)  ## lint, format and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .typings/vidxfer

.PHONY: fix
fix: $(STAMP)  ## let ruff repair lint and format, and write the generated parts of the documents anew
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tests/test_house_docs.py
