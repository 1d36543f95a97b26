# Two commands are all the set-up: `make demo` and `make test`; `make docs` is the site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Files of tests are shared out over the cores, at most four: each worker compiles much.
WORKERS := -n logical --maxprocesses 4 --dist loadfile

# The older emitters of this jaxlib compile a quarter faster, and differ in rounding. What
# promises bits, is compared with another library, or is run by a reader, is compiled as
# it is for users.
HASTE := XLA_FLAGS=--xla_cpu_use_fusion_emitters=false
AS_USERS := tests/_engine tests/_jaxpr tests/_random tests/_training \
	tests/bnn/_ensembles/test_fit_members.py tests/lightning \
	tests/test_ecosystem.py tests/test_examples.py tests/test_jaxlightning.py \
	tests/test_readme.py

.PHONY: demo test quick docs venv lint clean

demo: venv
	$(BIN)/python -m examples.demo

# Both halves run, whatever the first one finds.
test: venv
	status=0; \
	$(BIN)/python -m pytest $(WORKERS) $(AS_USERS) || status=$$?; \
	$(HASTE) $(BIN)/python -m pytest $(WORKERS) $(AS_USERS:%=--ignore=%) || status=$$?; \
	exit $$status

# The inner loop.
quick: venv
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

# The site, offline once the pinned packages are there; a warning or a dead link fails.
docs: $(VENV)/.docs
	$(BIN)/python -m docs._site build/site

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
		-c constraints.txt -e ".[docs]"
	touch $(VENV)/.docs

lint: venv
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/pyright

venv: $(STAMP)

# One resolver run with the exact versions that are tested.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
		-c constraints.txt -e ".[test]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build runs .pytest_cache .ruff_cache
