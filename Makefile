# Zambezi. `make help` lists what there is; README.md says where to begin.
# Everything the targets need is installed first (tools/install), which is silent and quick when nothing is missing.
SHELL := /bin/bash
PYTHON := .venv/bin/python
ZAMBEZI := .venv/bin/zambezi

.DEFAULT_GOAL := help
export MAKECMDGOALS
.PHONY: help install run demo demo-docker bundle try-bundle test test-containers test-versions check bench soak down

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Install what is missing: Debian packages, virtual environment, OHIF (as root where packages are missing)
	@tools/install

run: ## Start an empty archive in ./data, closed to strangers, with a first administrator
	@tools/install
	@$(ZAMBEZI) up --detach

demo: ## Start and play a hospital in ./data-demo, end to end (EXIT=1 stops it after the play, REPLAY=1 plays again)
	@tools/install
	@$(PYTHON) -m demo.play

demo-docker: ## The same in containers, with PostgreSQL (needs Docker Engine; EXIT=1 stops it after the play)
	@docker/play

bundle: ## Put packages, wheels, viewer and checkout into bundle/ for a USB stick (SUITE=bookworm|trixie)
	@tools/bundle $(if $(SUITE),--suite $(SUITE)) $(ARGS)

try-bundle: ## Try that bundle on a bare Debian without a network, as root (SUITE=..., ARGS=--boot: by systemd)
	@tools/try-bundle $(if $(SUITE),--suite $(SUITE)) $(ARGS)

test: ## Run every test, with real servers on free ports (ARGS="-k worklist" for some)
	@tools/install --tests
	@$(PYTHON) -m pytest -n 4 --dist loadscope --no-loadscope-reorder $(ARGS)

test-containers: ## Build the images and look at an installation in containers (needs Docker Engine)
	@tools/install --tests
	@ZAMBEZI_CONTAINERS=required $(PYTHON) -m pytest tests/containers $(ARGS)

test-versions: ## The plugin's tests with each supported Orthanc, in containers; prints what each gives (ARGS="forky" for one)
	@tools/install --tests
	@$(PYTHON) -m tests.versions $(ARGS)

check: ## Lint, formatting and types
	@tools/install --tests
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

bench: ## Measure ingest against bare Orthanc, rules, memory, starts, engines, nodes, viewing, routing, audit, journal, migration (ARGS="ingest" for some)
	@tools/install --tests
	@$(PYTHON) -m tests.bench $(ARGS)

soak: ## Kill processes for hours while images and orders come in; nothing may be lost (ON=postgresql: that one, too)
	@tools/install --tests
	@$(PYTHON) -m pytest tests/soak $(if $(ON),--on $(ON)) $(ARGS)

down: ## Stop what `make run` or `make demo` left running
	@for home in data data-demo; do if [ -d $$home ]; then ZAMBEZI_HOME=$$home $(ZAMBEZI) down; fi; done
	@if [ -d data-demo ]; then $(PYTHON) -m demo.play down; fi
