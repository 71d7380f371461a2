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
	$(BIN)/pip install --quiet --editable '.[reference,dev]'
	touch $@

# The whole road on a tiny checkpoint in the Hub's format.
demo: $(INSTALLED)
	rm -rf demo && mkdir demo
	$(abspath $(BIN))/msport sample gpt-oss demo/hub
	$(abspath $(BIN))/msport convert demo/hub -o demo/ms
	$(abspath $(BIN))/msport validate demo/ms --tol 1e-2
	$(abspath $(BIN))/msport generate demo/ms -p "What is MindSpore?" --max-new-tokens 24
	$(abspath $(BIN))/msport bench demo/ms

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
