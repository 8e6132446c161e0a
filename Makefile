.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# Given as make variables or in the environment; unset means the program's own default.
PORT ?=
HOST ?=
MILLRACE_HOME ?=
MILLRACE_CONFIG ?=
ARGS ?=
# A start of the stack is ten Python processes, and the tests start it a hundred times: compile our modules once, also
# where the environment forbids to keep what was compiled.
export PYTHONDONTWRITEBYTECODE :=
up: export PORT := $(PORT)
up: export HOST := $(HOST)
up: export MILLRACE_HOME := $(MILLRACE_HOME)
up: export MILLRACE_CONFIG := $(MILLRACE_CONFIG)

.PHONY: help setup up test system-test check soak bench

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## build .venv from the hashed locks; PYTHON names the interpreter

$(STAMP): requirements/setup.sh requirements/build.txt requirements/lock.txt requirements/postgres.txt pyproject.toml
	@requirements/setup.sh $(VENV) $@ "$(PYTHON)"

up: $(STAMP) ## run everything here; PORT HOST MILLRACE_HOME MILLRACE_CONFIG ARGS=--ephemeral
	@exec $(BIN)/millrace up $(ARGS)

test: $(STAMP) ## everything is tested, with its own services
	@exec $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

system-test: $(STAMP) ## what needs Debian's haproxy and pgbouncer; root gets them installed
	@$(BIN)/python -m tests.system.programs
	@exec $(BIN)/pytest tests/system $(ARGS)

check: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(STAMP) ## the long rounds: random kills, a full disk, a fleet; ARGS=fleet is one of them
	@exec $(BIN)/python -m tests.soak $(ARGS)

bench: $(STAMP) ## measure against the bare limit; writes bench/last.json
	@exec $(BIN)/python -m bench $(ARGS)
