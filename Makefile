# Every target makes .venv itself. `make demo` and `make test` are all that a newcomer needs.
PY := .venv/bin/python
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
SOURCES := core operator router_sidecar simulator cli
CHECKED := $(SOURCES) tests scripts benchmarks

.PHONY: help demo test check gen bench bench-router bench-reconcile bench-fidelity bench-planner bench-simulator \
	bench-capacity bench-demand bench-savings bench-headline bench-soak control-plane lock format clean

help: ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 18

demo: ## Watch the whole loop on this machine: no cluster, no GPU, no Prometheus (about 4 minutes).
	@scripts/venv.sh local
	@mkdir -p build
	@$(PY) -m trimtab_cli demo --json build/demo.json --html build/demo.html $(DEMO_ARGS)

test: ## Run all tests; builds the control plane for the cluster tests when Go and root are there.
	@scripts/venv.sh dev
	@scripts/control_plane/prepare.sh
	@$(PY) -m pytest $(TEST_ARGS)

check: ## Format, lint, types, import contracts, generated files, duplicates.
	@scripts/venv.sh dev
	@scripts/check.sh $(CHECKED)

gen: ## Write all generated files.
	@scripts/venv.sh dev
	@scripts/gen.sh

bench: bench-router bench-soak bench-reconcile bench-planner bench-simulator bench-fidelity bench-capacity bench-demand bench-headline bench-savings ## Run all benchmarks and write docs/benchmarks.md (hours).

bench-router: ## CPU, latency and memory of the router beside Envoy, vllm-router, uvicorn with aiohttp and a blind forwarder.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_router.py

bench-soak: ## Ten minutes of 500 streams while engines die: nothing lost, doubled or leaked.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_soak.py

bench-reconcile: ## CPU of reconciling 100 tiers with nothing to change.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_reconcile.py

fuzz: ## Fuzz the router's parsers, guided by coverage, for a bounded time.
	@scripts/venv.sh dev
	@$(PY) scripts/fuzz.py

bench-fidelity: ## The simulated replica beside a measured rate sweep (data from TRIMTAB_DATA or ../shared/data).
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_fidelity.py

bench-planner: ## Time and gap of plans of 200 and 1,000 variants.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_planner.py

bench-simulator: ## Requests per second and memory of the simulator.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_simulator.py

bench-capacity: ## Learned and assumed latencies beside measured ones.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_capacity.py

bench-demand: ## Forecasts on recorded load beside the last value.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_demand.py

bench-headline: ## Prompts of known outcomes: biggest model, tiers, tiers with cache and quantisation.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_headline.py

bench-savings: ## Cost and SLO on all scenarios beside tuned baselines and the optimum; writes docs/benchmarks.md.
	@scripts/venv.sh dev
	@$(PY) benchmarks/bench_savings.py
	@$(PY) benchmarks/report.py

control-plane: ## Build the Kubernetes control plane for the cluster tests (needs Go).
	@scripts/control_plane/build.sh

lock: ## Resolve and pin the dependencies again.
	@scripts/venv.sh dev
	@scripts/lock.sh

format: ## Format the code.
	@scripts/venv.sh dev
	@.venv/bin/ruff format $(CHECKED)
	@.venv/bin/ruff check --fix-only --quiet $(CHECKED)

clean: ## Remove what the targets made (the control plane's cache outside the tree stays).
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist benchmarks/out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
