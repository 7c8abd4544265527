# Everything runs in .venv, which is made on first use. A fresh Debian 12 needs git, make, python3 and python3-venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test check protos bench show picture clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 22

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: python3 is missing: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: Python 3.10 or newer is needed"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "make: venv is missing: apt install python3-venv"; exit 1; }
	@echo "installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[device]'
	@touch $@

$(VENV)/.installed-dev: $(STAMP)
	@echo "installing what tests and checks need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[device,dev]'
	@touch $@

demo: $(STAMP)  ## a camera, a gateway, and an accelerator that fails (30 s)
	@$(BIN)/edgeway demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev  ## the test suite
	@$(BIN)/python -m pytest $(TEST_ARGS)

check: $(VENV)/.installed-dev  ## ruff, mypy, import rules, fresh stubs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python protos/generate.py --check

protos: $(VENV)/.installed-dev  ## make the stubs from protos/edgeway/v1/*.proto
	@$(BIN)/python protos/generate.py

bench: $(VENV)/.installed-dev  ## overhead against bare Python gRPC
	@$(BIN)/python benchmarks/overhead.py

show:  ## list the show-NAME commands: each prints a figure, its bound and a control
	@grep -hoE '^show-[a-z-]+:.*##.*' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 22

show-demo: $(STAMP)  ## 30 s of camera: no failure, 95 % in budget, the model's accuracy
	@$(BIN)/edgeway demo --plain

picture: $(STAMP)  ## docs/demo.svg from a real run
	@$(BIN)/edgeway demo --svg docs/demo.svg

clean:  ## remove what make made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
