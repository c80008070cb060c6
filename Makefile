# Two commands: `make build` and `make test`. Everything else is for people who work on modelbuild.
.PHONY: build test check lint format bench reference programs clean help
.DEFAULT_GOAL := build

PYTHON ?= python3
BIN := .venv/bin
BINARY := modelbuild-out/targets/drone-int4/model.gguf
# uv does not read pip's configuration; hand on where pip looks for wheels, if anywhere.
export UV_FIND_LINKS ?= $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)

build: .venv/.installed  ## make the environment, build //targets:drone-int4, show where it is and how good
	@$(BIN)/modelbuild build //targets:drone-int4 //targets:quality
	@printf '\nbinary: %s, %s bytes, for llama.cpp\n\n' $(BINARY) $$(stat -Lc %s $(BINARY))
	@cat modelbuild-out/targets/quality/quality.md
	@printf '\nTry it:  %s\nWhy:     %s\nTests:   make test\n' \
	  '$(BIN)/modelbuild run //targets:drone-int4 -- "climb to 40 m, then hold for ten seconds"' \
	  '$(BIN)/modelbuild explain //targets:student'

test: .venv/.installed programs  ## every test, the slow ones too
	$(BIN)/python -m pytest -m ""

check: lint  ## format, ruff, mypy --strict, import contracts, generated documents, then the fast tests
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m modelbuild.cli.reference docs/reference --check
	$(BIN)/python -m benchmarks.readme --check

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reference: .venv/.installed  ## regenerate docs/reference from the rules
	$(BIN)/python -m modelbuild.cli.reference docs/reference

bench: .venv/.installed  ## the figures in README: against whatever peers are installed
	$(BIN)/python -m benchmarks.run

TEST_PACKAGES := qemu-user-static openssh-server openssh-client bazel-bootstrap zsh fish
programs:  ## what emulates and reaches devices, and Bazel to compare with; tests of what is missing are skipped
	@dpkg -s $(TEST_PACKAGES) >/dev/null 2>&1 || { [ $$(id -u) = 0 ] && command -v apt-get >/dev/null && \
	  { apt-get update -qq; DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq -y --no-install-recommends $(TEST_PACKAGES) >/dev/null; }; } || \
	  echo 'not all of these are installed, so that some tests are skipped: $(TEST_PACKAGES)'

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -m venv .venv || { apt-get install -y --no-install-recommends python3-venv && $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

clean:
	rm -rf .venv modelbuild-out

help:
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'
