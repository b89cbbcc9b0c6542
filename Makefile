# Every target is one command that can be run without make.
PYTHON ?= python3
STACK ?= local
MODEL ?= tiny-chat
FLEET = .venv/bin/fleet

.DEFAULT_GOAL := help
.PHONY: help setup up down status outputs env test test-unit test-integration test-fleet lint fix generate image image-test bench-up bench-gateway bench-drill bench-model bench-plan clean-cache

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## the Python environment and every pinned tool, nothing started
	@$(PYTHON) -m toolchain.bootstrap

up: setup ## set up everything and run the fleet of STACK (default: local)
	@$(FLEET) up -s $(STACK)

down: ## stop and remove what runs on this machine; the state of other stacks is left alone
	@$(PYTHON) -m local.down

status: ## clusters, control planes, models, replicas, endpoints
	@$(FLEET) status -s $(STACK)

outputs: ## the stack outputs as JSON
	@$(FLEET) outputs -s $(STACK)

env: ## settings for a shell: eval "$$(make -s env)"; with STACK=local its backend and kubeconfig too
	@$(PYTHON) -m toolchain.bootstrap >&2
	@.venv/bin/python -m toolchain.env $(if $(filter file,$(origin STACK)),,$(STACK))

test: setup lint test-unit test-integration test-fleet ## everything that must pass

test-unit: ## the default tier of pytest: nothing is started; under two minutes on two idle cores
	@$(PYTHON) -m toolchain.bootstrap --only python
	@.venv/bin/pytest -n 2

test-integration: setup ## real API servers, controllers, gateways and engines, each by itself
	@.venv/bin/pytest -m integration

test-fleet: setup ## a whole local fleet and its drills
	@.venv/bin/pytest -m fleet

lint: ## style and types
	@$(PYTHON) -m toolchain.bootstrap --only python
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/pyright
	@.venv/bin/lint-imports --no-logo

fix: ## let the linter fix what it can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

generate: ## the generated files: arguments of vLLM, schema of the stack file, tables of pins and policies
	@.venv/bin/python -m runtime_image.vllm_arguments
	@.venv/bin/python -m stacks.schema
	@.venv/bin/python -m operations.failover_budget_document
	@.venv/bin/python -m operations.existing_clusters_document
	@.venv/bin/python -m toolchain.docs
	@.venv/bin/python -m policies.docs

image: setup ## the serving runtime image, both variants; BASE=debian VARIANT=cpu where no base can be pulled
	@$(FLEET) image build $(if $(VARIANT),--variant $(VARIANT)) $(if $(BASE),--base $(BASE))

image-test: setup ## build the CPU variant, push, pull and run it as an arbitrary user; BASE=debian where no base can be pulled
	@$(FLEET) image test $(if $(BASE),--base $(BASE))

bench-up: setup ## seconds and memory per stage of `make up`, as a table and JSON
	@$(FLEET) bench up

bench-gateway: setup ## what the gateways and the stream relay of the running fleet add to a request, as a table and JSON
	@$(FLEET) bench gateway

bench-drill: setup ## every drill three times with mock engines, published settings beside ours: one table
	@mkdir -p bench-results
	@$(FLEET) drill all --mock-engine --baseline --repeat 3 --report bench-results/drill

bench-model: setup ## how fast MODEL (default: tiny-chat) answers in the running fleet, per region and through the front door
	@mkdir -p bench-results
	@$(FLEET) bench model $(MODEL) -s $(STACK) --json bench-results/$(MODEL).json

bench-plan: ## how long the planner takes to place up to 100 models on 100 clusters
	@$(PYTHON) -m toolchain.bootstrap --only python
	@$(FLEET) bench plan

clean-cache: ## remove the built tools (they are rebuilt by the next `make up`)
	@$(PYTHON) -m toolchain.bootstrap --clean-cache
