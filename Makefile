# make train, make speak, make talk, make test, make wheel, make bench, make check, make audit: each sets up
# .venv by itself, once. make gpu takes the python3 that is there: a GPU machine may be offline.
PYTHON ?= python3
RECIPE ?= quickstart
RUN ?= runs/$(RECIPE)
CORPUS ?= amazon_queen_excerpt
# Where the trainings begin: empty is the recipe's choice, scratch is new weights, or a folder.
TOKENIZER ?=
MODEL ?=
# More fields of the recipe: make train SET="training.steps=100 sampling.temperature=0.7"
SET ?=
# What make speak says, with which voice (empty: the packaged one), as whom, and how: SAY="--seed 3 --quiet"
TEXT ?= I had a plane to catch, and no time to lose.
VOICE ?=
SPEAKER ?=
SAY ?=
# More options of make talk: TALK="--chat http://127.0.0.1:8000/v1"
TALK ?=
# Folder of the results of make gpu, and more of its options: GPU="--steps kernels,training"
OUT ?= runs/gpu_day
GPU ?=
# One rank on a machine with one GPU, two otherwise (two CPU ranks where there is none).
RANKS ?= $(if $(filter 1,$(shell nvidia-smi -L 2>/dev/null | wc -l)),1,2)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
# From scratch there is more to learn (10 minutes each); and no voice speaks another tokenizer's codes.
NEW_TOKENIZER = tokenizer_frozen=false tokenizer_training.steps=1000 tokenizer_training.learning_rate=4e-4
NEW_VOICE = training.steps=750 training.learning_rate=1.5e-3
START = $(or $(MODEL),$(if $(TOKENIZER),scratch))
FIELDS = corpus=data/$(CORPUS) $(if $(TOKENIZER),tokenizer_start=$(TOKENIZER)) $(if $(START),model_start=$(START)) \
    $(if $(filter scratch,$(TOKENIZER)),$(NEW_TOKENIZER)) $(if $(filter scratch,$(START)),$(NEW_VOICE)) $(SET)
OPTIONS = --recipe $(RECIPE) $(addprefix --set ,$(FIELDS))
CSM = $(BIN)/python -m csm

.PHONY: help train speak talk test wheel bench gpu check audit
.DELETE_ON_ERROR:

help:
	@echo "make train   recorded conversations in, a talking model out: $(RUN)/report.html"
	@echo "make speak   TEXT=\"what to say\" SPEAKER=FAYE: says it with the packaged voice, or VOICE=a folder"
	@echo "make talk    opens a page on which you talk with the voice: http://127.0.0.1:8765"
	@echo "make test    the tests"
	@echo "make wheel   builds a wheel, installs it in an empty environment, speaks and trains with it (7 GB)"
	@echo "make bench   the benchmarks"
	@echo "make gpu     every check that needs a GPU, offline, in 25 minutes: $(OUT)/gpu_day.md"
	@echo "make check   ruff and mypy"
	@echo "make audit   known vulnerabilities of the installed packages (pip-audit asks PyPI)"
	@echo "Settings: PYTHON=$(PYTHON) RECIPE=$(RECIPE) RUN=$(RUN) CORPUS=$(CORPUS) RANKS=$(RANKS)"
	@echo "          TOKENIZER=$(TOKENIZER) MODEL=$(MODEL) (scratch or a folder) SET=\"$(SET)\" (training.steps=100 ...)"

train: $(READY)
	$(CSM) prepare --corpus $(CORPUS) --output data/$(CORPUS)
	$(CSM) train-tokenizer --ranks $(RANKS) $(OPTIONS) --output $(RUN)/tokenizer
	$(CSM) encode $(OPTIONS) --tokenizer $(RUN)/tokenizer --output $(RUN)/codes
	$(CSM) train --ranks $(RANKS) $(OPTIONS) --output $(RUN)
	$(CSM) generate --run $(RUN)
	$(CSM) evaluate --run $(RUN) --corpus data/$(CORPUS) --keep

# The text goes through the environment: a shell would read its quotes and dollars.
speak: export SPOKEN_TEXT = $(value TEXT)
speak: $(READY)
	@$(CSM) speak $(if $(VOICE),--voice $(VOICE)) $(if $(SPEAKER),--speaker $(SPEAKER)) $(SAY) -- "$$SPOKEN_TEXT"

talk: $(READY)
	@$(CSM) serve $(if $(VOICE),--voice $(VOICE)) $(TALK)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -q --numprocesses 2 --dist loadfile --durations 40

wheel: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/wheel.py

bench: $(VENV)/.peers
	$(BIN)/python -m pytest benchmarks/ --benchmark-only

gpu:
	$(PYTHON) benchmarks/gpu_day.py --out $(OUT) $(GPU)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(READY)
	$(PIP) install -qq pip-audit
	$(PIP) freeze --exclude-editable > $(VENV)/.installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(VENV)/.installed.txt

# The compiled kernels are rebuilt with their sources.
NATIVE := $(wildcard kernels/csm_kernels/*.cpp kernels/csm_kernels/*.h kernels/csm_kernels/*/*.cpp kernels/csm_kernels/*/*.h)

$(VENV)/.peers: $(READY)
	-$(PIP) install -qq --constraint constraints.txt --editable '.[bench]'
	@touch $@

$(READY): setup.py pyproject.toml constraints.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 14) else \
	    "csm runs on Python 3.10 to 3.14; $(PYTHON) is %d.%d. Try: make PYTHON=python3.12" % v)'
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv"; exit 1; }
	@echo "installing csm and what it needs into $(VENV) (once; 3 to 4 minutes)"
	$(PIP) install -qq --upgrade pip
	$(PIP) install -qq --constraint constraints.txt --editable '.[train,eval,serve,dev,hf]'
	@$(call optional,Resemblyzer,--no-deps,no speaker similarity)
	@$(call optional,pesq,,no PESQ)
	@touch $@

# $(call optional,package,pip option,what is missing without it): what may need a compiler, one by one.
# With every wheel at hand and no compiler the run goes on and the report names the metric.
define optional
$(PIP) install --quiet --constraint constraints.txt $(2) $(1) >$(VENV)/$(1).log 2>&1 \
|| echo "note: $(1) was not installed ($(3) in the report; it builds from source, see $(VENV)/$(1).log)"
endef
