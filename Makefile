.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

export PORT HOST MILLRACE_HOME MILLRACE_CONFIG

.PHONY: help setup check test

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## build .venv from the hashed locks

$(STAMP): requirements/build.txt requirements/lock.txt requirements/postgres.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --require-hashes -r requirements/build.txt
	$(BIN)/pip install -q --require-hashes --no-build-isolation -r requirements/lock.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

check: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(STAMP) ## everything, with its own services
	$(BIN)/pytest
