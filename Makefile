# The whole developer interface. Each target makes .venv first if it is missing or older than what it depends on.
#
#   make demo    erase, check, apply, revert and verify on a small real model, with pictures, into demo-out/
#   make test    all tests            make check   lint, format, types, layers, schema, documentation
#   make quick   the fifth of the tests that proves most: laws, commands, golden bytes, crashes, bad input, every eraser
#   make fix     format, and write the generated documentation anew
#   make soak    kill a process that writes models, SOAK=10000 times, and commands: the next finds the old model or the new
#   make fuzz    feed every parser with spoilt bytes, FUZZ=10 seconds each, and write the table into docs/lab-log.md
#   make bench   the tables of docs/benchmarks.md      make gpu   what needs a CUDA device: tests, a table
#   make house   the figures of docs/house.md    make axe    axe-core (npm), with which tests look at reports in Chromium
#   make results every table and picture of docs/results.md     make composer   those of docs/composer.md
#   make crowded every table of docs/crowded.md
#   make takedowns those of docs/takedowns.md                  make gates    those of docs/gates.md
#   make families  the tables of docs/hosts.md, from a run of every family's tiny model
#
# PYTHON=python3.12 chooses the interpreter of a new .venv; PIP_ARGS='--extra-index-url …' tells pip where else to look;
# JOBS=4 runs that many test processes; ARGS='-k merkle -x' goes to pytest; FULL=1 repeats checks with every kind and size
# (tests/support/full.py).

PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= 2
BEFORE ?= f238ffc
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.made
QUANTISED := .venv/quantised/.made

# One thread a process: the processes share the cores, and small matrices lose more than they gain by more.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
# Bytecode that is thrown away costs every later start of the command line.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# tests/documents/test_quick.py holds this list to what it promises.
QUICK := tests/laws tests/cli/test_contract.py tests/cli/erasing/test_methods.py tests/test_bad_input.py tests/interop \
  tests/patches/_io/test_safetensors_file.py tests/patches/format/signatures/test_model_signature.py \
  tests/patches/format/signatures/test_oms_vectors.py tests/registry/evidence/proofs/test_golden_log.py \
  tests/patches/hosts/disk/journal/test_rollback_journal.py tests/registry/log/test_merkle.py tests/registry/log/test_verify.py \
  tests/registry/stacks/test_lock_file.py tests/registry/stacks/test_plan_file.py tests/documents/test_quick.py

.PHONY: help demo test quick house check fix bench results composer takedowns gates families gpu schema crowded soak fuzz axe

help:
	@sed -n 's/^#   //p' Makefile

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "rasura needs Python 3.11 or newer; $(PYTHON) is older or missing. Try: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

# Wherever these are installed, diffusers imports them, which takes seconds; so they lie apart.
$(QUANTISED): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt --no-deps --upgrade \
	  --target .venv/quantised bitsandbytes gguf torchao
	@touch $@

# Drawing uses all cores.
demo: $(STAMP)
	env -u OMP_NUM_THREADS -u MKL_NUM_THREADS $(BIN)/rasura demo --out demo-out

test: $(STAMP) $(QUANTISED)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(ARGS)

# Tests of the report's page use it where it is, beside Chromium and Playwright.
axe: $(STAMP)
	mkdir -p .venv/axe-core
	cd .venv/axe-core && npm pack --silent axe-core@4 && tar -xzf axe-core-*.tgz

quick: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder -m "not slow" $(ARGS) $(QUICK)

check: $(STAMP) schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/tools/cli.py --check
	$(BIN)/python docs/tools/python.py --check
	$(BIN)/python docs/tools/methods.py --check
	$(BIN)/python docs/tools/families.py --check
	$(BIN)/python docs/tools/example.py --check

# The tables of the program and those that the migrations make are the same (what `alembic check` asks).
schema: $(STAMP)
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/registry/_storage/database/test_schema_drift.py

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/tools/cli.py
	$(BIN)/python docs/tools/python.py
	$(BIN)/python docs/tools/methods.py
	$(BIN)/python docs/tools/families.py
	$(BIN)/python docs/tools/example.py
	$(BIN)/python docs/tools/session.py README.md

# BEFORE is the commit of the first column, before the rooms.
house: $(STAMP)
	$(BIN)/python docs/tools/house.py --ref $(BEFORE) --write

soak: $(STAMP)
	PYTHONPATH=.dev:tests $(BIN)/python tests/support/crashes/soaking.py --kills $(or $(SOAK),10000) $(ARGS)

fuzz: $(STAMP)
	PYTHONPATH=.dev:tests $(BIN)/python tests/support/fuzzing.py --seconds $(or $(FUZZ),10) --write docs/lab-log.md $(ARGS)

# An hour on two cores; what was printed stays in docs/benchmarks.
bench: SHELL := bash
bench: .SHELLFLAGS := -o pipefail -c
bench: $(STAMP)
	@mkdir -p docs/benchmarks
	$(BIN)/python benchmarks/algebra/compose.py | tee docs/benchmarks/compose.md
	$(BIN)/python benchmarks/algebra/pairs.py | tee docs/benchmarks/pairs.md
	$(BIN)/python benchmarks/hosts/hosts.py | tee docs/benchmarks/hosts.md
	$(BIN)/python benchmarks/hosts/hosts.py --counts 256 --dtypes float16 --tables cycles | tee docs/benchmarks/hosts-256.md
	$(BIN)/python benchmarks/hosts/hosts.py --models SDXL --dtypes float16 --counts 1 4 16 256 --repeats 1 \
	  --tables cycles memory | tee docs/benchmarks/hosts-sdxl.md
	$(BIN)/python benchmarks/registry/enforcement.py | tee docs/benchmarks/enforcement.md
	$(BIN)/python benchmarks/registry/log.py | tee docs/benchmarks/log.md
	$(BIN)/python benchmarks/algebra/real_pairs.py | tee docs/benchmarks/real-pairs.md
	$(BIN)/python benchmarks/erasing/solving.py | tee docs/benchmarks/solving.md
	$(BIN)/python benchmarks/commands/cold.py | tee docs/benchmarks/cold.md
	$(BIN)/python benchmarks/families/probe.py | tee docs/benchmarks/probe.md
	$(BIN)/python benchmarks/hosts/disk.py | tee docs/benchmarks/disk.md
	$(BIN)/python benchmarks/hosts/disk.py --model SDXL --repeats 1 | tee docs/benchmarks/disk-sdxl.md

# Two to three hours on two cores from nothing; goes on where it was cut off.
results: $(STAMP)
	env -u OMP_NUM_THREADS -u MKL_NUM_THREADS $(BIN)/python benchmarks/results

# Two hours on two cores from nothing; goes on where it was cut off.
crowded: $(STAMP)
	$(BIN)/python benchmarks/crowded/crowded.py

# About twenty minutes from nothing; goes on where it was cut off.
composer: $(STAMP)
	$(BIN)/python benchmarks/composer/composer.py

# A quarter of an hour.
takedowns: $(STAMP)
	$(BIN)/python benchmarks/takedowns/choices.py
	$(BIN)/python benchmarks/takedowns/day.py

# A few minutes from nothing: docs/gates.md.
gates: $(STAMP)
	$(BIN)/python benchmarks/erasing/gates.py

# Twenty minutes on one core.
families: $(STAMP)
	FULL=1 RECORD_FAMILIES=1 $(BIN)/python -m pytest -q tests/cli/families/test_more_families.py \
		tests/cli/families/test_native_files.py
	$(BIN)/python docs/tools/families.py

gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu $(ARGS)
	$(BIN)/python benchmarks/hosts/fused.py
