# Everything here works on a machine with nothing but Python 3.11 and pip:
# the first target that needs it makes .venv and installs what is missing.

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help demo serve test lint format bench bench-smoke bench-gpu reproduce soak audit clean

help:
	@echo "make demo    complete photographs, train on others and compare, 5 to 7 minutes"
	@echo "make serve   the same in the browser: paint over what should go"
	@echo "make test    lint, formatting, types and all tests"
	@echo "make lint    lint, formatting and types only"
	@echo "make format  format and sort imports"
	@echo "make bench   speed and memory beside PyTorch, half an hour; a minute: bench-smoke"
	@echo "make bench-gpu  one GPU beside PyTorch in six minutes, with the python3 that is there"
	@echo "make reproduce PHOTOGRAPHS=FOLDER  the runs of docs/reproduction.md, many hours; resumes"
	@echo "make soak    long runs with faults, minutes each"
	@echo "make audit   look the installed requirements up among known vulnerabilities"
	@echo "make clean   remove .venv and caches; runs/ stays"

# A stamp is as old as the last installation; a changed requirement makes it outdated.
.venv/.made:
	@command -v $(PYTHON) > /dev/null || { \
		echo "make: $(PYTHON) is not here; name another one: make PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "Making .venv with $(PYTHON) ..."
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.run: .venv/.made requirements.txt pyproject.toml
	@echo "Installing gl_jax ..."
	@$(PIP) install --editable .
	@touch $@

.venv/.dev: .venv/.run
	@echo "Installing the tools for development ..."
	@$(PIP) install --editable '.[dev]'
	@touch $@

.venv/.serve: .venv/.run
	@echo "Installing what the page in the browser needs ..."
	@$(PIP) install --editable '.[serve]'
	@touch $@

.venv/.bench: .venv/.run
	@echo "Installing what the benchmarks need ..."
	@$(PIP) install --editable '.[bench]'
	@touch $@

demo: .venv/.run
	$(BIN)/gl-jax complete --rect 414,212,90,40 --concat --output runs/completed \
		--image $$($(BIN)/python -c "import sklearn; print(*sklearn.__path__)")/datasets/images
	@echo
	@echo "Two photographs completed by the shipped model: runs/completed/"
	@echo
	$(BIN)/gl-jax train experiments/quickstart.py --workdir runs/quickstart
	$(BIN)/gl-jax compare --model runs/quickstart --data bundled \
		--count 2 --methods gl,mean,telea --output runs/quickstart/comparison
	@echo
	@echo "Completed photographs that were not trained on: runs/quickstart/comparison/"
	@echo "Losses over the steps:                          runs/quickstart/curves.png"
	@echo "The same photographs during the training:       runs/quickstart/samples/"
	@echo "Every number, one line a step:                  runs/quickstart/metrics.jsonl"

# By default with the two photographs that scikit-learn brings along.
PHOTOS ?= $$($(BIN)/python -c "import sklearn; print(*sklearn.__path__)")/datasets/images

serve: .venv/.serve
	$(BIN)/gl-jax serve $(PHOTOS)

test: lint
	$(BIN)/pytest -q -m "not soak" --numprocesses auto --maxprocesses 8 --dist worksteal

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

bench: .venv/.bench
	$(BIN)/python -m benchmarks --json runs/bench.json

# Every kind of case once, so small that its times mean nothing: does the bench still run?
bench-smoke: .venv/.bench
	$(BIN)/python -m benchmarks --size tiny --json runs/bench-smoke.json --cases \
		joint_step,devices,inference_256,large_photo,input_pipeline_256x256
	cp docs/performance.md runs/bench-smoke.md
	$(BIN)/python -m benchmarks --report runs/bench-smoke.json --page runs/bench-smoke.md

# Nothing is installed: the machine's own Python has JAX with CUDA, Flax and PyTorch.
bench-gpu:
	python3 -m benchmarks.gpu --minutes 6 --json runs/bench-gpu.json

PHOTOGRAPHS ?= ../shared/data/train256
RUNS ?= runs/reproduction

reproduce: .venv/.run
	PATH="$(CURDIR)/$(BIN):$$PATH" docs/reproduction/run.sh $(PHOTOGRAPHS) $(RUNS)

soak: .venv/.dev
	$(BIN)/pytest -q -m soak

# In an environment of its own, so that it changes nothing here. Needs the internet.
audit: .venv/.made
	@$(PYTHON) -m venv .venv/audit
	@.venv/audit/bin/python -m pip --quiet --disable-pip-version-check install pip-audit
	.venv/audit/bin/pip-audit --requirement requirements.txt

clean:
	rm -rf .venv build *.egg-info .*_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
