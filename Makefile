# A new machine needs Python 3.11 or later, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEXT ?= The kids are talking by the door, and the dogs are sitting in the sun.
REF ?= examples/reference.flac
OUT ?= out/demo.wav

.PHONY: demo test check test-slow test-page test-realsize test-gpu bench clean

demo: $(VENV)/ready
	@mkdir -p $(dir $(OUT))
	$(BIN)/voxclone clone "$(REF)" "$(TEXT)" -o "$(OUT)" --seed 1 --cfg 3

test: check
	$(BIN)/pytest -n 2 --dist loadfile --durations=15

check: $(VENV)/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test-slow: $(VENV)/ready-dev
	$(BIN)/pytest -m slow --timeout=3600

# Needs a Chromium and a Firefox of the system.
test-page: $(VENV)/ready-dev
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[browsers]'
	$(BIN)/pytest -m slow tests/serve/test_page.py

test-realsize: $(VENV)/ready-dev
	$(BIN)/pytest -m realsize --timeout=3600 -s

test-gpu: $(VENV)/ready-dev
	$(BIN)/pytest -m gpu --timeout=3600 -s

bench: $(VENV)/ready-dev
	$(BIN)/python bench/codec.py

# The release that the tests were passed with. On Linux, pip may bring gigabytes of CUDA libraries along
# with it: where no GPU is meant to be used, give the wheel of PyTorch's CPU build instead,
# `make demo TORCH=path/to/torch-2.13.0+cpu-....whl`.
TORCH ?= torch==2.13.0

$(VENV)/python: 
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "$(TORCH)"
	@touch $@

$(VENV)/ready: $(VENV)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[speech,media]'
	@touch $@

$(VENV)/ready-dev: $(VENV)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[speech,media,train,adapter,eval,data,serve,dev]'
	@touch $@ $(VENV)/ready

clean:
	rm -rf $(VENV) out
