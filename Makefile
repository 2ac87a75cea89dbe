# Works on a fresh machine with Python 3.11 to 3.13 and make: every target makes the virtual
# environment that it needs and installs into it, once for each state of pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
DOCS_VENV ?= .venv-docs
AUDIT_VENV ?= .venv-audit
TORCH ?= torch==2.13.0
JOBS ?= 2

# Installs this package with its test tools into the environment $(1), made anew unless it
# has a working pip; then stamps it.
define install_into
	@command -v $(PYTHON) >/dev/null || { echo "error: no '$(PYTHON)' here; install Python 3.11 to 3.13 or name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "error: $$($(PYTHON) --version) does not fit, 3.11 to 3.13 does; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "error: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1)
	@echo "Installing into $(1): about 140 packages and 1.7 GB, a minute or two"
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $(1)/.installed
endef

.DEFAULT_GOAL := help
.PHONY: help install demo test nightly lint audit format parity results docs clean

help:  ## say what each target does
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'
	@echo "Settings: PYTHON=$(PYTHON) VENV=$(VENV) PARITY_VENV=$(PARITY_VENV) JOBS=$(JOBS)"

$(VENV)/.installed: pyproject.toml
	$(call install_into,$(VENV))

$(PARITY_VENV)/.installed: pyproject.toml
	$(call install_into,$(PARITY_VENV))

install: $(VENV)/.installed  ## make the virtual environment and install, test tools included

demo: $(VENV)/.installed  ## run the whole pipeline on the embedded storefront: a table and a report
	$(VENV)/bin/delrec run --config=configs/storefront.py --workdir=runs/storefront

# A file's tests stay together (--dist=loadfile): what they share is made once.
test: $(VENV)/.installed  ## run the quick tests, which need no GPU, no torch and no data
	$(VENV)/bin/python -m pytest -m "not slow and not real_data and not parity and not gpu" -n $(JOBS) --dist=loadfile

# What needs real data skips with a reason where ../shared is missing.
nightly: $(VENV)/.installed  ## run all the rest: slow tests, tests on real data, parity, the demo
	$(VENV)/bin/python -m pytest -m "(slow or real_data) and not gpu and not parity" -n $(JOBS) --dist=loadfile -rs
	$(MAKE) --no-print-directory parity
	$(MAKE) --no-print-directory demo

lint: $(VENV)/.installed  ## check with ruff (lint and format), mypy and bandit, changing nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/bandit --quiet --recursive --configfile pyproject.toml delrec_jax benchmarks configs launch

# Asks the registry for advisories, so it needs the network, and is not part of .ci/run. Strictly: where the registry has no
# answer for a package, pip-audit would otherwise leave it out and find nothing.
audit: $(VENV)/.installed  ## look up known vulnerabilities of what is installed
	$(PYTHON) -m venv --clear $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/bin/python -m pip freeze --exclude-editable >$(AUDIT_VENV)/installed.txt
	$(AUDIT_VENV)/bin/pip-audit --strict --progress-spinner off --no-deps --disable-pip --requirement $(AUDIT_VENV)/installed.txt

format: $(VENV)/.installed  ## let ruff rewrite what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

PARITY_PIP = $(PARITY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

# torch and peft come in one pip call, so that the exact version binds peft's choice too.
$(PARITY_VENV)/.torch: $(PARITY_VENV)/.installed
	$(PARITY_PIP) "$(TORCH)" peft
	@touch $@

# Only a torch that cannot be had here skips the tests; anything else that fails is a failure.
parity: $(PARITY_VENV)/.installed  ## compare with PyTorch transformers and peft, in their own environment
	@if $(PARITY_VENV)/bin/python -c 'import torch, peft' 2>/dev/null || $(MAKE) --no-print-directory $(PARITY_VENV)/.torch; then \
		$(PARITY_VENV)/bin/python -m pytest -m parity -n $(JOBS) --dist=loadfile; \
	elif $(PARITY_PIP) --dry-run "$(TORCH)"; then \
		echo "error: $(TORCH) can be installed here, peft beside it cannot (pip's reason is above)" >&2; exit 1; \
	else \
		echo "parity tests SKIPPED: $(TORCH) cannot be installed here (pip's reason is above)"; \
	fi

# From the files in results/ alone; a test fails where a page is not what this writes.
results: $(VENV)/.installed  ## write the tables and figures of README.md and docs/ from results/
	$(VENV)/bin/python benchmarks/evidence/tables.py
	$(VENV)/bin/python benchmarks/figures/draw.py

# Strictly: a dead link or an undocumented public name fails. The package is read, not imported.
docs: $(DOCS_VENV)/.installed  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet
	@echo "site/index.html"

$(DOCS_VENV)/.installed: docs/requirements.txt
	$(PYTHON) -m venv --clear $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@

clean:  ## remove the environments, site, caches and build leftovers (runs/ stays)
	rm -rf .venv .venv-parity .venv-docs .venv-audit site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
