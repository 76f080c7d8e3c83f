# One recipe for people and for CI. Set VENV to use another environment, PYTHON to build it with
# another interpreter: `make test PYTHON=python3.12 VENV=/tmp/venv312`.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
# What the lock covers: what the tests need. The other extras resolve beside these.
LOCK_EXTRAS ?= dev gcp tfds train
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1
SAMPLES := samples/wet/*
# What `make bench` reads. The reference stops at a damaged file, so the broken samples are not in.
WET ?= samples/wet/sample-0*
OUT ?= out/samples
RUN ?= out/model

INSTALLED := $(VENV)/.installed
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help corpus model test check lint layout types format lock audit fuzz bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

# Hashes are required for everything that is downloaded; the project itself is built with the
# setuptools of the lock, so that step needs no network.
$(INSTALLED): requirements.lock pyproject.toml setup.py
	@echo 'installing what the tests and every example need into $(VENV): some 3 GB, some minutes'
	@$(PYTHON) -c 'import sys; sys.exit("needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

corpus: $(INSTALLED)  ## build a corpus of the sample pages, and show what became of them
	$(BIN)/c4 build --input '$(SAMPLES)' --output $(OUT)

$(OUT)/manifest.json:
	@$(MAKE) --no-print-directory corpus

# Sizes for 116 pages and a minute or two; --workers 0: so little input needs no processes.
model: $(OUT)/manifest.json  ## train a vocabulary and a tiny T5 on that corpus
	$(BIN)/c4 vocab --corpus en=$(OUT) --size 1000 --output $(RUN)/samples.model --overwrite
	$(BIN)/c4 pretrain --corpus $(OUT) --vocab $(RUN)/samples.model --out $(RUN)/run \
	    --size tiny --input-length 128 --batch-size 16 --steps 200 --warmup 1000 --log-every 20 \
	    --workers 0

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint layout types  ## lint, formatting, types

lint: $(INSTALLED)
	$(BIN)/ruff check .

layout: $(INSTALLED)
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)  ## apply what `make check` asks for, where it can be applied
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --universal: one file for every platform and for every Python from 3.11 on.
lock:  ## pin every dependency again, within the bounds of pyproject.toml
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check --quiet install uv==$(UV_VERSION)
	build/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' \
	    $(LOCK_EXTRAS:%=--extra %) --output-file requirements.lock pyproject.toml
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' \
	    --extra gcp --constraint requirements.lock \
	    --output-file dataflow_templates/requirements.lock \
	    pyproject.toml dataflow_templates/requirements.in

# Where pip-audit cannot be had, or whom it asks cannot be reached, the script says so.
audit: $(INSTALLED)  ## known vulnerabilities of what is pinned
	$(PYTHON) -m venv build/audit
	-build/audit/bin/python -m pip --disable-pip-version-check --quiet install \
	    pip-audit==$(PIP_AUDIT_VERSION)
	$(BIN)/python scripts/audit.py --pip-audit build/audit/bin/pip-audit $(AUDIT_ARGS)

# Ten million inputs and more, an hour on one core; the extra fuzz guides them by what they reach.
FUZZ := reader:400000 lines:2000000 pages:400000 sentences:300000 urls:7500000 files:40000 \
    shards:300000 growth:8000
FUZZ_ARGS ?=
fuzz: $(INSTALLED)  ## fuzz all that reads strangers' bytes; stops at the first finding
	set -e; for target in $(FUZZ); do \
	    $(BIN)/python -m fuzz $${target%:*} --inputs $${target#*:} $(FUZZ_ARGS); \
	done

bench: $(INSTALLED)  ## the build against the reference, part by part, dedup against the naive graph
	$(BIN)/python -m benchmarks.build speed --wet '$(WET)'
	$(BIN)/python -m benchmarks.build stages --wet '$(WET)'
	$(BIN)/python -m benchmarks.sentences --wet '$(WET)'
	$(BIN)/python -m benchmarks.dedup

clean:  ## remove the environment and what was built
	rm -rf .venv build dist out
