# gwanmun: `make demo` shows it at work, `make test` runs all tests, `make check` is the quick gate before a commit.
# Everything is set up on the way and only when it is missing or out of date.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODULE := src/gwanmun/_native/libgwanmun.so
CARGO := $(shell command -v cargo)
WORKERS ?= 2
# What needs a Go toolchain and root has its own targets; what needs the module is left out where it cannot be built.
SHELL_TOOLS := $(and $(shell command -v curl),$(shell command -v openssl))
TESTS := not kubernetes and not helm$(if $(CARGO),, and not native)$(if $(SHELL_TOOLS),, and not shell)

.PHONY: help setup native demo test check cluster test-kubernetes conformance bench format lock clean
help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready $(MODULE) ## a virtual environment with gwanmun in it, and the native module where there is cargo

$(VENV)/.ready: pyproject.toml requirements/dev.txt requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'gwanmun needs Python 3.11 or newer (make PYTHON=python3.12 ...)'; exit 1; }
	echo '== virtual environment and dependencies (first time only)'
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/bootstrap.txt
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# Without cargo the gateway serves everything but what is read from request bodies, and says so.
ifeq ($(CARGO),)
$(MODULE):
	@echo '== no cargo: going on without the native module (routing by the model in the body needs it)'
else
$(MODULE): $(shell find native/src native/Cargo.toml native/Cargo.lock 2>/dev/null)
	@echo '== native module'
	$(CARGO) build --quiet --release --locked --manifest-path native/Cargo.toml
	mkdir -p $(dir $@)
	cp -f native/target/release/libgwanmun.so $@.new
	mv -f $@.new $@
endif

native: $(MODULE) ## build the native module

demo: setup ## the specification's manifests at work; make demo ONCE=1 checks and exits
	@$(BIN)/gwanmun demo $(if $(ONCE),--once)

test: setup ## all tests that need neither a Go toolchain nor root
	@echo '== tests'
ifneq ($(CARGO),)
	$(CARGO) test --quiet --locked --lib --manifest-path native/Cargo.toml
endif
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m '$(TESTS)'

check: setup ## format, lint, types, layers, fast tests: under a minute
	@$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
ifneq ($(CARGO),)
	$(CARGO) fmt --check --manifest-path native/Cargo.toml
	$(CARGO) clippy --quiet --locked --all-targets --manifest-path native/Cargo.toml -- -D warnings
endif
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m 'not slow and not envoy and not native and not kubernetes and not helm'

cluster: setup ## a Kubernetes cluster for tests (docs/how-to/test-cluster.md): needs Go
	@$(BIN)/python -m tests.kubernetes.cluster up

test-kubernetes: setup ## tests on a real kube-apiserver and of the chart: needs Go, and root or user namespaces
	@$(BIN)/python -m tests.kubernetes.cluster build
	$(BIN)/pytest -m 'kubernetes or helm' tests/kubernetes tests/chart

conformance: setup ## the official Gateway API suite against our controller; ARGS="--run-test ..."
	@$(BIN)/python -m conformance $(ARGS)

bench: setup ## ratios and goals, about ten minutes; NAMES="data_plane propagation" for some
	@$(BIN)/python benchmarks/run.py $(NAMES)

format: setup ## format everything
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
ifneq ($(CARGO),)
	$(CARGO) fmt --manifest-path native/Cargo.toml
endif

lock: ## write requirements/*.txt anew: exact versions with hashes, no addresses
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements/runtime.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml --group dev -o requirements/dev.txt
	echo 'uv==0.13.8' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header - -o requirements/bootstrap.txt

clean: ## remove everything that can be made again
	rm -rf $(VENV) build dist native/target $(MODULE) .mypy_cache .ruff_cache .pytest_cache .hypothesis
