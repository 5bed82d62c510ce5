# `make demo` and `make test` are the two commands to know; each brings its own environment.
PYTHON ?= python3
# LINE=sionna2: Sionna 2.2 on PyTorch in an environment of its own, for all that runs there.
LINE ?= sionna1
ifeq ($(LINE),sionna2)
VENV ?= .venv-sionna2
LOCK := requirements-sionna2-lock.txt
export KERAS_BACKEND := torch
else
VENV ?= .venv
LOCK := requirements-lock.txt
endif
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DOCS_VENV ?= .venv-docs
PYTEST_ARGS ?=
# What XLA compiles stays in memory until its process ends, so that the tests run in parts.
# In a part, the rooms with the longest tests come first: no core waits for the last of them.
LEARNING := tests/docs/ tests/training/ tests/models/ tests/evaluation/
AS_USERS := tests/golden/ tests/rt/ tests/experiments/ tests/scenes/ tests/data/ tests/runs/
COMPUTING := tests/ops/ tests/link/
OTHERS := $(filter-out $(LEARNING) $(AS_USERS) $(COMPUTING) %__pycache__/, $(wildcard tests/*/ tests/test_*.py))
ON_PYTORCH := $(addprefix tests/, golden models ops layers masking baselines data training link rt scenes test_doctor.py docs/test_notebooks.py)
# Those of the second line that are run, so that a run may have less.
TESTS ?= $(ON_PYTORCH)
# Most tests call a program once or twice: XLA compiles it, but does not polish it. Golden files and
# the example of the README run as users do.
UNPOLISHED := XLA_FLAGS="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
# Status 5 says that a part has none of the tests asked for.
PYTEST = $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) $(1) || [ $$? -eq 5 ]

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format slow data worlds train-worlds task-cities train dist notebooks docs doctor clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): $(LOCK) pyproject.toml scripts/setup_env.sh
	@scripts/setup_env.sh "$(PYTHON)" "$(VENV)" "$(LOCK)"

setup: $(STAMP) ## the virtual environment, and LLVM for ray tracing where apt-get may be used
	@scripts/setup_llvm.sh "$(PY)"

demo: setup ## the main job, short: a table, a record and figures in runs/demo
	$(PY) experiments/link_level_eval.py --config experiments/configs/link_demo.toml --out runs/demo

ifeq ($(LINE),sionna2)
test: setup
	$(call PYTEST,$(TESTS))
else
test: setup lint ## lint and the quick tests; LINE=sionna2: those that run with Sionna 2.2 on PyTorch
	$(UNPOLISHED) $(call PYTEST,$(COMPUTING) $(OTHERS))
	$(UNPOLISHED) $(call PYTEST,$(LEARNING))
	$(call PYTEST,$(AS_USERS))
endif

lint: $(STAMP) ## ruff, the types of the public face, the layers of the package
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

format: $(STAMP) ## let ruff repair and format what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

slow: setup ## the tests that take minutes
	$(PY) -m pytest -m slow $(PYTEST_ARGS)

data: setup ## trace the sequences of every experiments/configs/data_*.toml again
	@for config in experiments/configs/data_*.toml; do \
		$(PY) experiments/generate_sequences.py --config $$config || exit; \
	done

worlds: setup ## trace the streets of experiments/configs/worlds_eval.toml, in runs/worlds
	@for config in experiments/configs/worlds/data_*.toml; do \
		$(PY) experiments/generate_sequences.py --config $$config --out runs/worlds || exit; \
	done

train-worlds: setup ## trace and draw the worlds of experiments/configs/predictor_worlds.toml
	@for config in experiments/configs/training/data_*.toml; do \
		$(PY) experiments/generate_sequences.py --config $$config --out runs/train_worlds || exit; \
	done
	@for config in experiments/configs/training/*tr38901.toml; do \
		$(PY) experiments/generate_channels.py --config $$config --out runs/train_worlds || exit; \
	done

task-cities: setup ## trace the cities of experiments/configs/teach_sight.toml
	@for config in experiments/configs/tasks/data_*.toml; do \
		name=$$(basename $$config .toml); \
		$(PY) experiments/generate_sequences.py --config $$config \
			--out runs/task_cities/$${name#data_}.h5 || exit; \
	done

train: setup ## train the small predictor again
	$(PY) experiments/train_predictor.py --config experiments/configs/predictor_small.toml

dist: $(STAMP) ## the source and a wheel that is the whole tool, in dist/
	rm -rf build
	$(PY) -c "from setuptools.build_meta import *; build_sdist('dist'); build_wheel('dist')"

ifeq ($(LINE),sionna2)
notebooks: setup
	$(PY) scripts/notebooks.py $(wildcard docs/notebooks/*_sionna_2_*.py)
else
notebooks: setup ## run the notebooks of both lines and keep them with their outputs (long)
	$(PY) scripts/notebooks.py $(filter-out %_sionna_2_link.py, $(wildcard docs/notebooks/*.py))
	$(MAKE) notebooks LINE=sionna2
endif

$(DOCS_VENV)/.installed: requirements-docs-lock.txt
	$(PYTHON) -m venv --clear $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r requirements-docs-lock.txt
	@touch $@

docs: $(DOCS_VENV)/.installed ## the documentation site, in build/site; links that lead nowhere are errors
	rm -rf docs/api
	$(DOCS_VENV)/bin/python -m sphinx -q --fail-on-warning --keep-going docs build/site

doctor: $(STAMP) ## versions, backend, LLVM, devices, and what to do about what is missing
	@$(PY) -m lwmt_sionna.doctor

clean: ## remove caches and builds (environment, data and runs stay)
	rm -rf build dist docs/api *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find lwmt_sionna experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +
