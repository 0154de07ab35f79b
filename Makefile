# Everything that a fresh machine needs, in one word: `make matrix`. `make help` lists the rest.

PYTHON ?= python3
SCENARIO ?= scenarios/matrix.yaml
RUN ?= results/latest
PYTEST ?=

BIN := .venv/bin
HARNESS := $(BIN)/harness
LIBOPUS := .cache/native/libopus.so.0
# The image's own, so that all labs code alike; without it, Opus goes without DRED and says so.
TRY_LIBOPUS = $(MAKE) -s libopus || echo "libopus was not built: no DRED, no deep PLC" >&2

# A test's module stays on one core, for what its tests share; a container may see more cores than it has.
ON_ALL_CORES := -n auto --maxprocesses 4 --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help matrix test test-rest test-all check bench report image libopus doctor lock clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo "  variables: SCENARIO=$(SCENARIO) RUN=$(RUN) PYTHON=$(PYTHON)"

matrix: .venv/.installed ## run SCENARIO (default: the whole matrix) and draw its report
	@$(TRY_LIBOPUS)
	@$(HARNESS) run $(SCENARIO)

test: .venv/.installed ## run the tests, on all cores; those that this machine cannot run say why
	@$(TRY_LIBOPUS)
	@$(BIN)/python -m pytest -m "not realtime" $(ON_ALL_CORES) $(PYTEST)

test-rest: .venv/.installed ## run those that stream in real time, one by one: a quarter of an hour
	@$(TRY_LIBOPUS)
	@$(BIN)/python -m pytest -m realtime $(PYTEST)

test-all: test test-rest ## run both

check: .venv/.installed ## lint, formatting, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: .venv/.installed ## measure every speed that the project claims
	@$(BIN)/python -m tests.bench

report: .venv/.installed ## draw the report of RUN again (default: the last run)
	@$(HARNESS) report $(RUN)

image: .venv/.installed ## build the container image (make matrix does it by itself)
	@$(BIN)/python -m harness.labs.image

libopus: $(LIBOPUS) ## build libopus with DRED and deep PLC for the labs on this host (needs gcc)

doctor: .venv/.installed ## say what this machine can do, and the remedy for what it cannot
	@$(HARNESS) doctor

lock: .venv/.installed ## write the versions that are installed into the lock
	@sed -n '/^#/p' requirements.lock > requirements.lock.new
	@$(BIN)/pip freeze --exclude-editable -qq \
	  | grep -vE '^(encodec|moshi|silero-vad)==' | sed 's/+[a-z0-9.]*$$//' >> requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## remove leftovers of killed runs, and caches; environment and results stay
	@if [ -x $(HARNESS) ]; then $(HARNESS) clean; fi
	@rm -rf .wheelhouse build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find harness tests -name __pycache__ -type d -prune -exec rm -rf {} +

# With standard tools only, so that it needs no environment. DRED goes without where it fails.
$(LIBOPUS): harness/labs/libopus.py
	@echo "building libopus with DRED and deep PLC (half a minute)"
	@$(PYTHON) $< $(@D)

# The stamp is written last: an environment that was cut off while it was made is made again.
.venv/.installed: requirements.lock requirements.no-deps.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "$(PYTHON) is not Python 3.11 to 3.13: make PYTHON=python3.11 ..." >&2; exit 2; }
	@echo "setting up .venv (some minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps \
	  -r requirements.no-deps.lock -e .
	@touch $@
