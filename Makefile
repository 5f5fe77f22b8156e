# Requires only git, make, a C++ compiler and Python 3.10 to 3.13.
# PYTHON=python3.12 make repro selects an interpreter; the default is the first one found.

SUPPORTED := 3.10 3.11 3.12 3.13
PRINT_VERSION := import sys; print("%d.%d" % sys.version_info[:2])

ifndef PYTHON
PYTHON := $(shell for python in .venv/bin/python python3.11 python3.12 python3.13 python3.10 python3; do \
	version=$$($$python -c '$(PRINT_VERSION)' 2>/dev/null); \
	case " $(SUPPORTED) " in (*" $$version "*) break;; esac; done; echo $$python)
endif
VERSION := $(shell "$(PYTHON)" -c '$(PRINT_VERSION)' 2>/dev/null || echo none)

# Not empty if CUDA is of use here, or the user said where torch comes from. PyPI's torch is a CUDA build on x86_64 Linux.
MAY_DOWNLOAD := $(CUDA)$(PIP_EXTRA_INDEX_URL)$(PIP_INDEX_URL)$(PIP_FIND_LINKS)$(shell command -v nvidia-smi; \
	[ "$$(uname -sm)" = "Linux x86_64" ] || echo other; ls -d .venv/lib/python*/site-packages/torch 2>/dev/null)

# Stamp files, newer than their requirements after an installation, so that a second call installs nothing.
INSTALLED := .venv/installed-$(VERSION)
INSTALLED_FILMS := .venv/installed-films-$(VERSION)
INSTALLED_DEV := .venv/installed-dev-$(VERSION)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help play repro upper-bound seeds films test test-quick lint bench pictures ui clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

play: $(INSTALLED) ## Set up, then play in a browser the shipped world, or WORLD=data/models (stop with Ctrl-C)
	genie play $(WORLD:%=--world %)

repro: $(INSTALLED) ## Set up, then run every stage of the pipeline that is out of date
	dvc repro

# Git refs of the DVC experiments that started from this commit.
EXPERIMENTS = refs/exps/$(shell git rev-parse HEAD | sed 's|..|&/|')

# The workspace is unchanged: the experiment runs in a copy, and one file is read from its commit.
TRUE_ACTIONS = $(EXPERIMENTS)/true-actions
upper-bound: $(INSTALLED) ## Train and evaluate a copy on the true actions, for comparison
	git update-ref -d $(TRUE_ACTIONS)
	dvc exp run --temp --name true-actions --set-param dynamics.actions=true
	git show $(TRUE_ACTIONS):data/metrics/evaluate.json >data/metrics/.true_actions.json
	mv data/metrics/.true_actions.json data/metrics/true_actions.json

# The gates are disabled, so that a collapse is counted and does not end the experiment. Other queued experiments run
# too.
SEEDS := 1 2
SEED_RUNS = $(SEEDS:%=$(EXPERIMENTS)/seed-%)
seeds: $(INSTALLED) ## Train and evaluate with other seeds too, and write mean and spread (SEEDS="1 2 3 4" for more)
	for run in $(SEED_RUNS); do git update-ref -d $$run; done
	for seed in $(SEEDS); do dvc exp run --queue --name seed-$$seed --set-param lam.seed=$$seed \
		--set-param motion.seed=$$seed --set-param steering.seed=$$seed --set-param dynamics.seed=$$seed \
		--set-param lam.gate_min_perplexity=0 --set-param lam.surprise.gate_min_information=-1000 \
		--set-param lam.pixels.gate_min_gain_db=-1000 || exit 1; done
	dvc exp run --run-all
	genie seeds HEAD $(SEED_RUNS)

# The actions played are kept apart in films/GAME-judge, where nothing but the judge reads them.
GAME ?= freeway
MINUTES ?= 10
FILMS = films/$(GAME)
films: $(INSTALLED_FILMS) ## Record films of GAME=freeway for MINUTES=10, train a world on them, judge and play it
	@for film in data/films/*; do [ ! -e "$$film" ] || [ -e "$(FILMS)/$${film##*/}" ] || \
		{ echo "make films: $$film is not in $(FILMS): move it elsewhere first" >&2; exit 1; }; done
	@if [ -d $(FILMS) ] && [ -d $(FILMS)-judge ]; then \
		echo "$(FILMS) is used as it is: remove it and $(FILMS)-judge to record anew"; else \
		python -m tools.record_films $(GAME) --minutes $(MINUTES) --out $(FILMS) --judge $(FILMS)-judge; fi
	genie import $(FILMS)
	genie scale films
	dvc repro
	python -m tools.judge_films $(FILMS)-judge --out $(FILMS)-judge.json
	@echo "To return to CoinRun: rm data/films/$(GAME)-* && git restore params.yaml dvc.lock data/metrics"
	genie play --world data/models

# Tests of one file run in one process, since they share expensive fixtures.
test: lint ## Set up, then check everything that CI checks
	pytest --numprocesses logical --dist loadfile

test-quick: lint ## Same as test, without tests marked slow: no pipeline is trained
	pytest --numprocesses logical --dist loadfile -m "not slow"

lint: $(INSTALLED_DEV) ## Set up, then check style and types only
	ruff check .
	ruff format --check .
	pyright

bench: $(INSTALLED_DEV) ## Measure speed and memory of each part, then of play (WORLD=folder for another world)
	genie bench $(WORLD:%=--world %)
	python -m benchmarks.play $(WORLD:%=--world %)
	python -m benchmarks.clients $(WORLD:%=--world %)

pictures: $(INSTALLED_DEV) ## Rebuild the pictures of the page in docs/, of the shipped world (WORLD=folder for another)
	python -m benchmarks.pictures $(WORLD:%=--world %)

ui: $(INSTALLED) ## Open MLflow on all runs (stop with Ctrl-C)
	mlflow ui

clean: ## Remove .venv and the tools' caches; keeps data, experiments and the DVC cache
	rm -rf .venv .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(if $(filter $(VERSION),$(SUPPORTED)),,$(error Python 3.10 to 3.13 is needed, \
	found $(VERSION): PYTHON=python3.11 make $(firstword $(MAKECMDGOALS))))
	$(if $(MAY_DOWNLOAD),,$(error No NVIDIA card here, and PyTorch's default build downloads 2.7 GB of CUDA. \
	For its CPU build (0.2 GB): PIP_EXTRA_INDEX_URL=<the index that pytorch.org shows for CPU> \
	make $(firstword $(MAKECMDGOALS)). For CUDA all the same: make $(firstword $(MAKECMDGOALS)) CUDA=1))
	@# Recreates .venv if it has another Python version or no pip (as uv makes it).
	@test "$$(.venv/bin/python -c 'import pip; $(PRINT_VERSION)' 2>/dev/null)" = "$(VERSION)" \
		|| "$(PYTHON)" -m venv --clear .venv
	.venv/bin/python -m pip install --constraint constraints.txt --editable '.[train]'
	@touch $@

$(INSTALLED_FILMS): $(INSTALLED)
	.venv/bin/python -m pip install --constraint constraints.txt --editable '.[train,films]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	.venv/bin/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@
