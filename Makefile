# The two commands: `make train` and `make test`. Everything else is here for development.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup train real-us test docs lint mutants bench bench-check learning clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## make .venv with the pinned versions

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

train: $(READY) ## collect the bundled sample, train all five phases, backtest
	$(BIN)/python main.py collect-data --source sample
	$(BIN)/python main.py train --experiment quickstart --overwrite

US_DATA ?= ../shared/data/us_daily
SEEDS ?= 0 1 2

real-us: $(READY) ## train and backtest on US_DATA for all SEEDS; writes the table of docs/results.md
	$(BIN)/python main.py collect-data --source files --input $(US_DATA) --data-dir data/us/raw \
		--overwrite
	set -e; for seed in $(SEEDS); do $(BIN)/python main.py train --experiment real_us \
		--data-dir data/us/raw --log-dir logs/real_us/$$seed --seed $$seed --overwrite; done
	$(BIN)/python main.py report $(SEEDS:%=logs/real_us/%) --readme docs/results.md

WORKERS ?= 2

test: $(READY) ## run the fast tests and the notebooks, WORKERS files at a time
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --nbmake tests notebooks

docs: $(READY) ## build the pages into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(READY) ## check style, format, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

MUTANTS ?=

mutants: $(READY) ## change the code in thousands of places and count what no test notices (hours; it resumes)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutants.py --workers $(WORKERS) $(MUTANTS)

bench: $(READY) ## run every speed benchmark, one after the other
	set -e; for name in startup features environments backtest ppo td3 profile_phases \
		exported_decision forecasters; do \
		$(BIN)/python -m benchmarks.$$name; done

bench-check: $(READY) ## name what got slower by more than 20 % since benchmarks/baseline.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.check

learning: $(READY) ## train where the best policy is known, 5 seeds each (hours); prints the table
	$(BIN)/python main.py known-markets --seeds 5

clean: ## remove the environment and caches; data/ and logs/ stay
	rm -rf $(VENV) build dist mutants *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
