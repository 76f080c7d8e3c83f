# One recipe for people and for CI. VENV is where the environment is made, PYTHON the interpreter
# that makes it: `make test PYTHON=python3.13 VENV=/tmp/venv313`. With PYTHON alone, an environment
# of another version is replaced.

PYTHON ?= python3.11 python3.12 python3.13 python3
VENV ?= .venv
# What is installed for which purpose: one row with the extras of pyproject.toml that it needs, locked
# in requirements/PURPOSE.lock. `make lock` gives all locks the same versions.
EXTRAS.build :=
EXTRAS.train := train tasks
EXTRAS.test  := dev gcp aws tfds train tasks report import
EXTRAS.pods  := train tpu
EXTRAS.image := gcp import
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1
SAMPLES := samples/wet/*
# What `make bench` reads. The reference stops at a damaged file, so the broken samples are not in.
WET ?= samples/wet/sample-0*
OUT ?= out/samples
TOUR ?= out/tour

BIN := $(VENV)/bin
LOCKS ?= requirements
PURPOSES := $(sort $(patsubst EXTRAS.%,%,$(filter EXTRAS.%,$(.VARIABLES))))
VERSION := $(shell print='import sys; print("%d.%d" % sys.version_info[:2])'; \
    { [ '$(origin PYTHON)' = file ] && $(BIN)/python -c "$$print" 2>/dev/null; } \
    || "$$(scripts/find_python.sh $(PYTHON) 2>/dev/null)" -c "$$print" 2>/dev/null)
# A stamp for each step of the environment.
MADE := $(VENV)/.python$(VERSION)
INSTALLED := $(VENV)/.project
WITH_TRAIN := $(VENV)/.train
WITH_TESTS := $(VENV)/.test
WITH_PODS := $(VENV)/.pods

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Install exactly the lock: nothing is resolved, so later releases have no effect. Source packages are
# built with the setuptools of tools.lock, as wheels: pip 23.0, of Debian 12, has warnings for the older
# way. Bytecode is compiled afterwards, on all cores: pip uses one,
# and some packages contain templates that are not valid Python. It is not left to the first run, which
# a full disk might interrupt.
INSTALL := $(PIP) install --no-deps --no-build-isolation --use-pep517 --no-compile --require-hashes
BYTECODE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || :

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help corpus tour studies test test-fast test-all check lint layout types format lock audit fuzz \
    bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

$(MADE):
	@echo 'making $(VENV); the build of a corpus needs some 600 MB, training and tests more'
	@python=$$(scripts/find_python.sh $(PYTHON)) || exit 1; \
	    [ ! -f $(VENV)/pyvenv.cfg ] || clear=--clear; \
	    echo "$$python -m venv $$clear $(VENV)"; "$$python" -m venv $$clear $(VENV)
	@touch $@

$(VENV)/.build: $(MADE) $(LOCKS)/tools.lock $(LOCKS)/build.lock
	$(INSTALL) -r $(LOCKS)/tools.lock
	$(INSTALL) -r $(LOCKS)/build.lock
	$(BYTECODE)
	@touch $@

# Every other purpose is installed on top of the build.
$(VENV)/.%: $(VENV)/.build $(LOCKS)/%.lock
	$(INSTALL) -r $(LOCKS)/$*.lock
	$(BYTECODE)
	@touch $@

$(INSTALLED): $(VENV)/.build pyproject.toml setup.py
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

corpus: $(INSTALLED)  ## build a corpus of the sample pages, and show what each rule dropped
	$(BIN)/c4 build --input '$(SAMPLES)' --output $(OUT)

$(OUT)/manifest.json:
	@$(MAKE) --no-print-directory corpus

# Sizes for 116 pages and a minute or two; --workers 0: so little input needs no processes.
tour: $(INSTALLED) $(WITH_TRAIN) $(OUT)/manifest.json  ## from that corpus to a vocabulary, a tiny T5, a task and its score
	$(BIN)/c4 vocab --corpus en=$(OUT) --size 1000 --output $(TOUR)/samples.model --overwrite
	$(BIN)/c4 pretrain --corpus $(OUT) --vocab $(TOUR)/samples.model --out $(TOUR)/pretrained \
	    --size tiny --input-length 128 --batch-size 16 --steps 200 --warmup 1000 --log-every 40 \
	    --workers 0
	$(BIN)/c4 finetune --from $(TOUR)/pretrained --out $(TOUR)/reviews \
	    --task samples/tasks/reviews-train.tsv --validation samples/tasks/reviews-validation.tsv \
	    --input-length 64 --batch-size 16 --steps 200 --eval-every 100 --log-every 40 --workers 0
	$(BIN)/c4 evaluate --from $(TOUR)/reviews --task own --data $(TOUR)/reviews/data --show 2

studies: $(INSTALLED) $(WITH_TESTS)  ## run the paper's experiments at scale tiny: half an hour on two cores
	C4_ALL_STUDIES=1 $(BIN)/python -m pytest tests/model/studies/test_all_studies.py $(PYTEST_ARGS)

test: $(INSTALLED) $(WITH_TESTS)  ## run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(INSTALLED) $(WITH_TESTS)  ## run the tests that are not marked slow: three to four minutes
	$(BIN)/python -m pytest -m 'not slow' $(PYTEST_ARGS)

# Includes Flink (Java, Maven), the compiler for TPUs and the image's rehearsal, which `make test`
# skips if they are missing. If they cannot be installed, the tests say so and the skip fails the run.
test-all: $(INSTALLED) $(WITH_TESTS) $(WITH_PODS)  ## run every test; a skip that is not allowed fails
	-PYTHON=$(BIN)/python scripts/flink_cluster.sh fetch
	C4_REHEARSE_IMAGE=1 $(BIN)/python -m pytest --strict-skips $(PYTEST_ARGS)

check: lint layout types  ## lint, formatting, types

lint: $(INSTALLED) $(WITH_TESTS)
	$(BIN)/ruff check .

layout: $(INSTALLED) $(WITH_TESTS)
	$(BIN)/ruff format --check .

types: $(INSTALLED) $(WITH_TESTS)
	$(BIN)/mypy

format: $(INSTALLED) $(WITH_TESTS)  ## apply what `make check` asks for, where it can be applied
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --universal: one file for every platform and for every Python from 3.11 on. All extras are resolved
# once, together, and each lock is a part of that. UPGRADE= keeps what is pinned and still fits.
UPGRADE ?= --upgrade
RESOLVE = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
    --no-emit-index-url --no-annotate --custom-compile-command 'make lock'
BUILD_REQUIRES := import tomllib; \
    print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
lock:  ## pin every dependency again, within the bounds of pyproject.toml
	"$$(scripts/find_python.sh $(PYTHON))" -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check --quiet install uv==$(UV_VERSION)
	build/lock/bin/python -c '$(BUILD_REQUIRES)' >build/lock/tools.in
	cat requirements/*.lock >build/lock/all.txt
	$(RESOLVE) $(UPGRADE) --output-file build/lock/all.txt pyproject.toml build/lock/tools.in \
	    $(addprefix --extra ,$(sort $(foreach purpose,$(PURPOSES),$(EXTRAS.$(purpose)))))
	rm requirements/*.lock
	$(RESOLVE) --generate-hashes --constraint build/lock/all.txt \
	    --output-file requirements/tools.lock build/lock/tools.in
	set -e; $(foreach purpose,$(PURPOSES),$(RESOLVE) --generate-hashes \
	    --constraint build/lock/all.txt --output-file requirements/$(purpose).lock pyproject.toml \
	    $(addprefix --extra ,$(EXTRAS.$(purpose)));)

# The script reports if pip-audit cannot be installed or its services cannot be reached.
audit:  ## known vulnerabilities of what is pinned
	"$$(scripts/find_python.sh $(PYTHON))" -m venv build/audit
	-build/audit/bin/python -m pip --disable-pip-version-check --quiet install \
	    pip-audit==$(PIP_AUDIT_VERSION)
	build/audit/bin/python scripts/audit.py $(AUDIT_ARGS)

# Ten million inputs and more, an hour on one core; the extra fuzz guides them by what they reach.
FUZZ := reader:400000 lines:2000000 pages:400000 sentences:300000 urls:7500000 files:40000 \
    shards:300000 growth:8000 imports:300000
FUZZ_ARGS ?=
fuzz: $(INSTALLED) $(WITH_TESTS)  ## fuzz all that reads strangers' bytes; stops at the first finding
	set -e; for target in $(FUZZ); do \
	    $(BIN)/python -m fuzz $${target%:*} --inputs $${target#*:} $(FUZZ_ARGS); \
	done

bench: $(INSTALLED) $(WITH_TESTS)  ## the build against the reference, part by part, dedup against the naive graph
	$(BIN)/python -m benchmarks.build speed --wet '$(WET)'
	$(BIN)/python -m benchmarks.account --batch 1024 --wet '$(WET)'
	$(BIN)/python -m benchmarks.sentences --wet '$(WET)'
	$(BIN)/python -m benchmarks.dedup

clean:  ## remove the environment and what was built
	rm -rf .venv build dist out
