PYTHON ?= python3

venv := .venv/bin/python
pip := $(venv) -m pip --quiet --disable-pip-version-check install --constraint constraints.txt
# The CPU build of torch; plain pip on Linux would add gigabytes of CUDA.
# One retry: where this index is out of reach, pip soon goes on with its usual one.
cpu := --no-deps --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu

.PHONY: help lab test

help:
	@echo 'make lab     open the notebooks in JupyterLab'
	@echo 'make test    check the style and run the tests'
	@echo
	@echo 'The first run installs everything into .venv, which takes a few minutes.'
	@echo 'Arguments are passed on:  make lab ARGS=--no-browser   make test ARGS="-k layers"'
	@echo 'Another Python:           make PYTHON=python3.12 lab'

lab: .venv/ready
	$(venv) -m jupyterlab --ip=127.0.0.1 --allow-root \
		--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(ARGS)

test: .venv/ready
	$(venv) -m ruff check
	$(venv) -m ruff format --check
	$(venv) -m pytest $(ARGS)

# Made last, so an install that was interrupted is made again from the start.
.venv/ready: pyproject.toml constraints.txt
	@stop() { echo "$$1" >&2; exit 1; }; \
	command -v "$(PYTHON)" >/dev/null || stop "There is no $(PYTHON) here. \
	Install Python 3.11 or newer (on Debian: apt install python3-venv), \
	or name the one you have: make PYTHON=python3.12 lab"; \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || \
	stop "$(PYTHON) is $$("$(PYTHON)" --version 2>&1), but Python 3.11 or newer is needed. \
	Install one, or name the one you have: make PYTHON=python3.12 lab"; \
	"$(PYTHON)" -m venv --clear .venv >/dev/null 2>&1 || { rm -rf .venv; \
	stop "$(PYTHON) cannot make a virtual environment: its venv module is missing or broken. \
	Install it (on Debian: apt install python3-venv), \
	or name another Python: make PYTHON=python3.12 lab"; }
	@echo 'Installing into .venv; this takes a few minutes.'
	$(pip) $(cpu) torch
	$(pip) --editable '.[test]'
	@# Nobody wants to be asked about news in front of a class.
	$(venv) -m jupyterlab.labextensions disable @jupyterlab/apputils-extension:announcements
	@touch $@
