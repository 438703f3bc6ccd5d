# A few words: run test check bench crash fuzz clean help
PY ?= python3
VENV ?= .venv
ARGS ?=
CYCLES ?= 500
BIN := $(VENV)/bin
SHELL := /bin/sh

.PHONY: run test check bench crash fuzz clean help

help:
	@echo 'make run    start hubbub (ARGS="--hub telemetry:8 --memory")'
	@echo 'make test   all tests'
	@echo 'make check  lint, format, types'
	@echo 'make bench  speed, as ratios to references measured in the same run'
	@echo 'make crash  kill -9 cycles (CYCLES=500)'
	@echo 'make fuzz   the fuzz tests, for longer'
	@echo 'make clean  remove what make made'

# Debian ships python3 without venv; then pip brings virtualenv, into this folder only.
$(BIN)/python:
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'hubbub needs Python 3.11 or newer; set PY=/path/to/python3.11'; exit 1; }
	@$(PY) -m venv "$(VENV)" 2>/dev/null || { rm -rf "$(VENV)" && \
		$(PY) -m pip install --quiet --target "$(VENV)-tool" virtualenv && \
		PYTHONPATH="$(VENV)-tool" $(PY) -m virtualenv --quiet "$(VENV)"; }

$(VENV)/.stamp-run: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e .
	@touch "$@"

$(VENV)/.stamp-test: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch "$@" "$(VENV)/.stamp-run"

run: $(VENV)/.stamp-run
	@exec "$(BIN)/hubbub" up $(ARGS)

test: $(VENV)/.stamp-test
	"$(BIN)/python" -m pytest $(ARGS)

check: $(VENV)/.stamp-test
	"$(BIN)/ruff" format --check src tests benchmarks
	"$(BIN)/ruff" check src tests benchmarks
	"$(BIN)/mypy"

bench: $(VENV)/.stamp-test
	"$(BIN)/python" benchmarks/bench.py $(ARGS)

crash: $(VENV)/.stamp-test
	"$(BIN)/python" tests/crash/crash.py --cycles $(CYCLES) $(ARGS)

fuzz: $(VENV)/.stamp-test
	HYPOTHESIS_PROFILE=long "$(BIN)/python" -m pytest tests/fuzz --timeout 3600 $(ARGS)

clean:
	rm -rf "$(VENV)" "$(VENV)-tool" build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
