# Everything needs only git, make, a C++ compiler and Python 3.10 to 3.13.
# PYTHON=python3.12 make repro chooses one; without it the first that is found is taken.

SUPPORTED := 3.10 3.11 3.12 3.13
PRINT_VERSION := import sys; print("%d.%d" % sys.version_info[:2])

ifndef PYTHON
PYTHON := $(shell for python in .venv/bin/python python3.11 python3.12 python3.13 python3.10 python3; do \
	version=$$($$python -c '$(PRINT_VERSION)' 2>/dev/null); \
	case " $(SUPPORTED) " in (*" $$version "*) break;; esac; done; echo $$python)
endif
VERSION := $(shell "$(PYTHON)" -c '$(PRINT_VERSION)' 2>/dev/null || echo none)

# A stamp is newer than what it was installed from, so that a second call installs nothing.
INSTALLED := .venv/installed-$(VERSION)
INSTALLED_DEV := .venv/installed-dev-$(VERSION)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help play repro upper-bound seeds test lint bench pictures ui clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

play: $(INSTALLED) ## Set up, then play in a browser the shipped world, or WORLD=data/models (stop with Ctrl-C)
	genie play $(WORLD:%=--world %)

repro: $(INSTALLED) ## Set up, then run every stage of the pipeline that is out of date
	dvc repro

# Where DVC keeps the experiments that started from this commit.
EXPERIMENTS = refs/exps/$(shell git rev-parse HEAD | sed 's|..|&/|')

# The workspace stays as it is: the experiment runs in a copy, and of what it left in git one file is taken.
TRUE_ACTIONS = $(EXPERIMENTS)/true-actions
upper-bound: $(INSTALLED) ## Train and evaluate a copy that is told the true actions, to compare with
	git update-ref -d $(TRUE_ACTIONS)
	dvc exp run --temp --name true-actions --set-param dynamics.actions=true
	git show $(TRUE_ACTIONS):data/metrics/evaluate.json >data/metrics/.true_actions.json
	mv data/metrics/.true_actions.json data/metrics/true_actions.json

# Their gate is open: a collapse is to be counted rather than to end the experiment. Whatever else waits in the queue
# runs too.
SEEDS := 1 2
SEED_RUNS = $(SEEDS:%=$(EXPERIMENTS)/seed-%)
seeds: $(INSTALLED) ## Train and evaluate with other seeds too, and write what differs (SEEDS="1 2 3 4" for more)
	for run in $(SEED_RUNS); do git update-ref -d $$run; done
	for seed in $(SEEDS); do dvc exp run --queue --name seed-$$seed --set-param lam.seed=$$seed \
		--set-param motion.seed=$$seed --set-param steering.seed=$$seed --set-param dynamics.seed=$$seed \
		--set-param lam.gate_min_perplexity=0 --set-param lam.surprise.gate_min_information=-1000 \
		--set-param lam.pixels.gate_min_gain_db=-1000 || exit 1; done
	dvc exp run --run-all
	genie seeds HEAD $(SEED_RUNS)

# A file's tests stay in one process, since they share what was costly to make.
test: lint ## Set up, then check everything that CI checks
	pytest --numprocesses logical --dist loadfile

lint: $(INSTALLED_DEV) ## Set up, then check style only
	ruff check .
	ruff format --check .

bench: $(INSTALLED_DEV) ## Measure speed and memory of each part, then play the world in Chromium (WORLD=folder for another)
	genie bench $(WORLD:%=--world %)
	python -m benchmarks.play $(WORLD:%=--world %)

pictures: $(INSTALLED_DEV) ## Make those of the page in docs/ anew, of the shipped world (WORLD=folder for another)
	python -m benchmarks.pictures $(WORLD:%=--world %)

ui: $(INSTALLED) ## Open MLflow on all runs (stop with Ctrl-C)
	mlflow ui

clean: ## Remove .venv and the tools' caches; data, experiments and the DVC cache stay
	rm -rf .venv .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(if $(filter $(VERSION),$(SUPPORTED)),,$(error Python 3.10 to 3.13 is needed, \
	found $(VERSION): PYTHON=python3.11 make $(firstword $(MAKECMDGOALS))))
	@# One of another Python, and one without pip (uv makes such), is made anew.
	@test "$$(.venv/bin/python -c 'import pip; $(PRINT_VERSION)' 2>/dev/null)" = "$(VERSION)" \
		|| "$(PYTHON)" -m venv --clear .venv
	.venv/bin/python -m pip install --constraint constraints.txt --editable '.[train]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	.venv/bin/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@
