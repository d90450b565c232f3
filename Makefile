# `make up` and `make test` are all there is to it: each sets up .venv first when it is missing or out of date.
#
#   ARGS="..."       flags for up, run, test, test-containers, slow, endure, soak, bench:
#                    make run ARGS="--preset smoke --out results/smoke"
#   PYTHON=...       the interpreter that .venv is made from; by default the first of 3.11 to 3.14 on PATH
#   PIP_ARGS="..."   more flags for pip: on Linux, `--extra-index-url URL` of an index of CPU-only torch wheels spares
#                    the CUDA libraries (gigabytes) that torch brings otherwise
#   VENV=...         another place for the virtual environment

supported = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c '$(supported)' 2>/dev/null && echo $$name && break; done)
PIP_ARGS ?=
VENV = .venv
ARGS =
run-python = $(VENV)/bin/python
ready = $(VENV)/.ready
native = simulator/native
kernels = $(native)/lib/.built
workers = --numprocesses auto --dist worksteal

.PHONY: help setup up run test slow endure soak test-containers check protos fuzz bench bench-gpu bench-peers scaling docs tutorial pictures clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

setup: $(ready) $(kernels) ## make the virtual environment, as pinned in constraints.txt, and the native kernels
	@echo "$(VENV) is ready"

up: $(ready) $(kernels) ## run the live system, watch results flicker; Ctrl-C ends it (ARGS="--data LOG --for 180")
	@$(run-python) -m simulator up $(ARGS)

run: $(ready) $(kernels) ## run the default experiment in one process and say where its report is
	@$(run-python) -m simulator run $(ARGS)

test: $(ready) $(kernels) ## run the tests on all cores, but for the slow ones (ARGS="tests/world -n0": some, one by one)
	@$(run-python) -m pytest $(workers) $(ARGS)

slow: $(ready) $(kernels) ## run the slow tests
	@$(run-python) -m pytest -m slow $(ARGS)

endure: $(ready) $(kernels) ## kill every process of a system under load, 25 times each; what it cost must be 0 (25 minutes)
	@$(run-python) -m tests.bench.endure $(ARGS)

soak: $(ready) $(kernels) ## run a system under load for 30 minutes; nothing may grow or fail (ARGS="--minutes 5")
	@$(run-python) -m tests.bench.soak $(ARGS)

test-containers: ## run the containers and test them (needs Docker, or COMPOSE_RUNNER; ARGS=--secure: with TLS and tokens)
	@tests/containers/run.sh $(ARGS)

check: $(ready) ## lint, formatting and types
	$(run-python) -m ruff check
	$(run-python) -m ruff format --check
	$(run-python) -m mypy
	$(VENV)/bin/buf lint protos

protos: $(ready) ## regenerate the gRPC stubs (ARGS=--check: only say whether they are what the proto says)
	@$(run-python) -m protos.generate $(ARGS)

fuzz: $(ready) $(kernels) ## mutations of 10,000 generations, 1,000,000 requests and 2,000 logs (ARGS="--mutations 300 --seed 7")
	@$(run-python) -m tests.fuzz.generations $(ARGS)
	@$(run-python) -m tests.fuzz.requests $(ARGS)
	@$(run-python) -m tests.fuzz.logs $(ARGS)

bench: $(ready) $(kernels) ## measure speed, print medians and ratios
	@$(run-python) tests/bench/run.py $(ARGS)

bench-gpu: $(ready) ## the same on an NVIDIA GPU
	@$(run-python) tests/bench/gpu.py $(ARGS)

bench-peers: $(ready) $(kernels) ## measure Ray Serve, pytriton and LitServe beside ours (first: ARGS=--install)
	@$(run-python) tests/bench/run_peers.py $(ARGS)

scaling: $(ready) $(kernels) ## measure how time and memory grow, write docs/scaling.md (ARGS=--live: the laws of flicker size alone)
	@$(run-python) tests/bench/scaling.py $(ARGS)

docs: $(ready) ## make the site of README and docs in build/docs; a warning is an error
	@$(run-python) -m sphinx -W --keep-going -q -b html docs build/docs $(ARGS)
	@echo "build/docs/index.html"

tutorial: $(ready) $(kernels) ## run docs/tutorial.ipynb, keep what it prints in it
	@$(run-python) -m tests.tutorial

pictures: $(ready) $(kernels) ## make docs/page.png and report.png anew (ARGS="--data movietweetings-100k"; needs chromium)
	@$(run-python) -m tests.page.pictures $(ARGS)

clean: ## remove the virtual environment and all caches; results stay
	rm -rf $(VENV) $(native)/lib .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(ready): pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(supported)' 2>/dev/null || { \
		echo "Flicker needs Python 3.11 to 3.14: install one, or name it with PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON); the first time this takes a few minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(run-python) -m pip install --constraint constraints.txt $(PIP_ARGS) --editable '.[live,page,dev]'
	@touch $@

# without a C++ compiler a line says so, and all works without them
$(kernels): $(wildcard $(native)/*.?pp) $(native)/build.py | $(ready)
	@$(run-python) $(native)/build.py --optional
