# The README's commands. Needs make and Python 3.11 or newer, nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$name"; break; }; done)
BIN := .venv/bin
DATA ?= var
CHAOS_ROUNDS ?= 20

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
# uv trusts the certificates that the machine trusts, as pip does.
export UV_SYSTEM_CERTS := 1

# uv installs in seconds what takes pip minutes; pip does it where uv cannot (no build for the machine, settings of pip's).
install = $(BIN)/python -m pip install --quiet --constraint constraints.txt uv && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable $(1) || \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable $(1)

.PHONY: help demo up down test coverage lint bench chaos constraints clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

demo: .venv/installed ## import and export 200,000 contacts on a stack of its own, then stop it
	$(BIN)/haulier demo

up: .venv/installed ## run everything in the foreground, data in ./var (DATA=DIR)
	$(BIN)/haulier up --data $(DATA)

down: .venv/installed ## stop what 'make up' runs
	$(BIN)/haulier down --data $(DATA)

test: .venv/installed-for-tests ## every test, on servers of their own
	$(BIN)/python -m pytest -n 4 --dist worksteal

coverage: .venv/installed-for-tests ## every test, and how many branches of the code they take: 95 % or it fails
	$(BIN)/python -m pytest -n 4 --dist worksteal --cov --cov-config=setup.cfg --cov-report=term

lint: .venv/installed-for-tests ## Ruff, mypy and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-for-tests ## speed and memory beside psql and bare handlers; writes var/bench.json
	$(BIN)/python -m tests.bench

chaos: .venv/installed-for-tests ## the fault tests, CHAOS_ROUNDS times; SEED=7: 200 jobs, 25 random faults; KILLS=50: imports and exports killed
ifdef SEED
	$(BIN)/python -m tests.faults.chaos --seed $(SEED)
else ifdef KILLS
	KILL_RUNS=$(KILLS) $(BIN)/python -m pytest -q -n 3 -k killed tests/faults/test_imports.py tests/faults/test_exports.py tests/integration/test_export_killed.py
else
	@round=1; while [ $$round -le $(CHAOS_ROUNDS) ]; do \
		echo "round $$round of $(CHAOS_ROUNDS)"; $(BIN)/python -m pytest -q tests/faults || exit 1; round=$$((round + 1)); \
	done
endif

constraints: .venv/installed-for-tests ## write the versions that are installed to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9_.-]+==' > constraints.txt

clean: ## remove the virtualenv and caches, never data
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found on the path" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# A stamp is written last, so that an installation that was cut off is done again.
.venv/installed: setup.cfg pyproject.toml constraints.txt | .venv/bin/python
	$(call install,.)
	@touch $@

.venv/installed-for-tests: .venv/installed
	$(call install,'.[test]')
	@touch $@
