PYTHON ?= python3

# What runs in .venv keeps it as it is; what installs there waits its turn, or says why it cannot.
venv := .venv/bin/python
run := $(venv) tools/environment.py run
install := -I tools/environment.py install

# Set for another Python, they break this one.
unexport PYTHONHOME PYTHONPATH

STUDENTS ?= 20

.PHONY: help lab quick test bench site sheets classroom

help:
	@echo 'make lab     open the notebooks in JupyterLab'
	@echo 'make quick   check the style and run the quick tests'
	@echo 'make test    check the style and run all tests'
	@echo 'make bench   measure speed, size and exactness, into benchmarks/RESULTS.md (needs Chromium)'
	@echo 'make site    run all lessons and write them as web pages, into _build/html'
	@echo 'make sheets  draw the cheat sheet and the handouts anew (needs Chromium)'
	@echo 'make classroom STUDENTS=20  try how many students a JupyterHub here can bear (Linux)'
	@echo
	@echo 'The first run installs everything into .venv, which takes a few minutes.'
	@echo 'Arguments are passed on:  make lab ARGS=--no-browser   make test ARGS="-k layers"'
	@echo 'Another Python:           make PYTHON=python3.12 lab'

lab: .venv/ready
	$(run) -m jupyterlab --ip=127.0.0.1 --allow-root \
		--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(ARGS)

quick: .venv/ready
	$(run) -m ruff check
	$(run) -m ruff format --check
	$(run) -m pytest -m 'not slow' $(ARGS)

test: .venv/ready
	$(run) -m ruff check
	$(run) -m ruff format --check
	$(run) -m pytest $(ARGS)

bench: .venv/bench/ready
	$(run) -m benchmarks.run $(ARGS)

site: .venv/ready
	OMP_NUM_THREADS=1 $(run) -m sphinx -W --keep-going -E -a -q -c docs $(ARGS) . _build/html
	@echo 'Now open _build/html/index.html, or serve that folder: python3 -m http.server -d _build/html'

sheets: .venv/ready
	PYTHONPATH=docs $(run) -m sheets

classroom: .venv/classroom/ready
	$(run) -m classroom.run --students $(STUDENTS) $(ARGS)

.venv/bench/ready .venv/classroom/ready: .venv/ready
	@$(venv) $(install) $@ $^

.venv/ready: pyproject.toml constraints.txt binder/overrides.json
	@stop() { echo "$$1" >&2; exit 1; }; \
	command -v "$(PYTHON)" >/dev/null || stop "There is no $(PYTHON) here. \
	Install Python 3.11 or newer (on Debian: apt install python3-venv), \
	or name the one you have: make PYTHON=python3.12 lab"; \
	"$(PYTHON)" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || \
	stop "$(PYTHON) is $$("$(PYTHON)" --version 2>&1), but Python 3.11 or newer is needed. \
	Install one, or name the one you have: make PYTHON=python3.12 lab"; \
	"$(PYTHON)" -I -c 'import ensurepip, venv' 2>/dev/null || \
	stop "$(PYTHON) cannot make a virtual environment: its venv module is missing or broken. \
	Install it (on Debian: apt install python3-venv), \
	or name another Python: make PYTHON=python3.12 lab"
	@"$(PYTHON)" $(install) $@ $^
