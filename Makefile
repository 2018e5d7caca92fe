# make demo | test | check | soak | train | evaluate | venv; options for the command line go into ARGS:
#   make demo ARGS="--port 7999"
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
ARGS ?=

.PHONY: demo test check soak train evaluate venv
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(RUN) -m introspection demo $(ARGS)

train: $(VENV)/.installed
	$(RUN) -m introspection train $(ARGS)

evaluate: $(VENV)/.installed
	$(RUN) -m introspection evaluate $(ARGS)

# All but what soaks, with the real default model and the browser. Visitors often wait, hence one worker more
# than the two cores it is meant for. What shares a server stays together: see tests/conftest.py.
test: $(VENV)/.installed-dev
	$(RUN) -m pytest -n 3 --dist loadscope --no-loadscope-reorder -m "not soak" $(ARGS)

# The long forms: run them before a fault is called mended and whenever the server changes.
soak: $(VENV)/.installed-dev
	$(RUN) -m pytest -m soak $(ARGS)

# What a change should pass before it is committed.
check: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	@# The types are checked beside the tests: both have to be well.
	$(RUN) -m mypy & types=$$!; $(RUN) -m pytest -n 2 -m "not slow and not soak" $(ARGS) && wait $$types

venv: $(VENV)/.installed-dev

# A stamp is newer than the files it was made from, or the packages are installed again. pip compiles
# on one core; compileall does it on all, and fails where a package has files for other Pythons.
INSTALL = $(RUN) -m pip install --disable-pip-version-check --no-compile -c constraints.txt -r
COMPILE = $(RUN) -m compileall -qq -j 0 $(VENV)/lib || true

$(VENV)/.installed: requirements.txt constraints.txt | $(RUN)
	$(INSTALL) requirements.txt
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed | $(RUN)
	$(INSTALL) requirements-dev.txt
	@$(COMPILE)
	@touch $@

$(RUN):
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here: install Python 3.11 or newer, or say which one to use with make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old: install Python 3.11 or newer, or say which one to use with make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python could not make a virtual environment: install its venv module (Debian: apt-get install python3-venv)." >&2; exit 1; }
