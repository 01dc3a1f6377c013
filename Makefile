# `make demo` and `make test` are all that a fresh machine needs; they ask for Python 3.11 or newer and for nothing else.
#
# Every target works from .venv, which is made once from constraints.txt (exact versions with hashes) and brought up to
# date when constraints.txt or pyproject.toml change. Nothing is written outside this folder but pip's own cache.
#
#   PYTHON=python3.12   the interpreter to make .venv with; without it the one of .venv, or the first that is new enough
#   ARGS='-x -k name'   further options for pytest

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?=
ARGS ?=
FILE ?=
KEEP ?=
SIZE ?= 1GiB
ROUNDS ?= 5
ONLY ?=
DATA ?=
LIMIT ?=
SECONDS_EACH ?= 20

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE_MODULES := .cache/interop/node_modules
RIVALS := .cache/bench-venv
ATHERIS := .cache/atheris
VERSION := import sys; print("%d.%d" % sys.version_info[:2])

# As others see it: from a folder without settings of ours, with the packages where Python finds them.
TYPED := holdfast holdfast_protocol holdfast_server
VERIFYTYPES := cd $(VENV) && PATH=$(CURDIR)/$(BIN):$$PATH PYTHONPATH=$(CURDIR)/client_sdk:$(CURDIR)/protocol:$(CURDIR)/server $(CURDIR)/$(BIN)/pyright --pythonpath $(CURDIR)/$(BIN)/python --ignoreexternal --verifytypes

# .venv is made anew when it is not of this checkout (its paths are absolute), is broken, or is of another Python.
HERE := $(shell $(BIN)/python -c '$(VERSION)' 2>/dev/null)
ifneq ($(PYTHON),)
WANTED := $(shell $(PYTHON) -c '$(VERSION)' 2>/dev/null)
else
WANTED := $(HERE)
endif
FRESH := $(if $(HERE),$(if $(filter $(WANTED),$(HERE)),$(if $(wildcard $(READY)),$(shell [ "$$(cat $(READY))" = "$(CURDIR)" ] || echo --clear),),--clear),--clear)

.PHONY: help demo test check bench benchpage rivals docs conformance clients constraints interop fuzz clean fresh

help: ## this list
	@echo "Holdfast. Needs Python 3.11 or newer, and nothing else."
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: $(READY) ## upload a file, kill the server half-way, resume, download, compare; FILE=path, KEEP=1
	@$(BIN)/python demo/main_job.py $(if $(FILE),--file "$(FILE)") $(if $(KEEP),--keep)

test: $(READY) ## the tests; ARGS='-x -k name'
	$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## ruff, mypy, pyright, and that what is public is typed to the last
	@status=0; \
	for tool in 'ruff check .' 'ruff format --check --output-format=concise .' mypy pyright; do \
	  echo "$$tool"; $(BIN)/$$tool || { status=1; echo "$$tool: FAILED"; }; \
	done; \
	for package in $(TYPED); do \
	  echo "pyright --verifytypes $$package"; ( $(VERIFYTYPES) $$package ) > $(VENV)/types.log || { status=1; \
	    grep -E ' error: |score' $(VENV)/types.log; echo "pyright --verifytypes $$package: FAILED"; }; \
	done; \
	exit $$status

bench: $(READY) ## benchmarks, side by side with what is installed; SIZE=1GiB, ROUNDS=5, ONLY=ingest, DATA=folder, LIMIT=seconds
	@$(BIN)/python -m benchmarks --size "$(SIZE)" --rounds "$(ROUNDS)" $(if $(ONLY),--only "$(ONLY)") $(if $(DATA),--data "$(DATA)") $(if $(LIMIT),--limit "$(LIMIT)")

benchpage: $(READY) ## write docs/benchmarks.md and its plots from the newest results of make bench
	@$(BIN)/python -m benchmarks --publish

rivals: $(RIVALS)/.ready ## fetch tuspyserver, which make bench compares with, into an environment of its own

docs: $(READY) ## check the documents: links, and that every command and setting they name exists
	@$(BIN)/python docs/check.py

conformance: $(READY) $(NODE_MODULES)/.ready ## run the conformance suite against Holdfast, tusd and @tus/server, and write docs/conformance.md
	@$(BIN)/python -m docs.conformance

clients: $(READY) $(NODE_MODULES)/.ready ## run the tests with the clients of others, and write docs/interop.md (needs Chromium)
	@$(BIN)/python -m docs.interop

interop: $(NODE_MODULES)/.ready ## fetch the Node packages that the interop tests use (needs node and npm)

constraints: ## pin the dependencies again, newest versions, with uv
	@command -v uv >/dev/null || { echo "make constraints needs uv: pip install uv"; exit 1; }
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --extra dev pyproject.toml --output-file constraints.txt >/dev/null

# atheris is no dependency: there are versions of Python that it is not built for.
fuzz: $(READY) ## look for inputs that break the parsers, with atheris; SECONDS_EACH=20, ONLY='field framing'
	@$(BIN)/python -c 'import sys; sys.path.insert(0, "$(ATHERIS)"); import atheris' 2>/dev/null \
	  || $(BIN)/python -m pip --disable-pip-version-check install --quiet --target $(ATHERIS) atheris==3.0.0 \
	  || { echo "make fuzz needs atheris, which cannot be had for this Python and machine; the corpus runs with make test." >&2; exit 1; }
	@PYTHONPATH=$(ATHERIS) $(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH) $(ONLY)

clean: ## remove everything that was made here
	rm -rf $(VENV) .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage benchmarks/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

fresh:

$(READY): constraints.txt pyproject.toml $(if $(FRESH),fresh)
	@set -e; \
	python=''; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",$(if $(FRESH),,$(BIN)/python) python3 python3.13 python3.12 python3.11 python); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Holdfast needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is none,there is none on the PATH)." >&2; \
	  echo "Install it, or say where it is: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	  echo "$$python cannot make virtual environments: the modules venv and ensurepip are not installed." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv (as root), then say make again." >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version) (once; pinned by constraints.txt)"; \
	if [ -n "$(FRESH)" ] || [ ! -x $(BIN)/python ]; then "$$python" -m venv --clear $(VENV); fi; \
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement constraints.txt; \
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .; \
	printf '%s' "$(CURDIR)" > $(READY)

# Exact versions stand in benchmarks/rivals.txt. Nothing of ours is installed there, and nothing of theirs in .venv.
$(RIVALS)/.ready: benchmarks/rivals.txt | $(READY)
	$(BIN)/python -m venv --clear $(RIVALS)
	$(RIVALS)/bin/python -m pip --disable-pip-version-check install --quiet --requirement benchmarks/rivals.txt
	touch $@

# Exact versions stand in package.json, also of what the packages need themselves; there is no lock file.
$(NODE_MODULES)/.ready: tests/interop/package.json
	@command -v npm >/dev/null || { echo "make interop needs node and npm; on Debian: apt install nodejs npm" >&2; exit 1; }
	mkdir -p .cache/interop
	cp tests/interop/package.json .cache/interop/package.json
	npm_config_cache=.cache/npm npm install --prefix .cache/interop --no-package-lock --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@
