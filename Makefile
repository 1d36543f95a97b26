# Two commands are all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Files of tests are shared out over the cores, at most four: each worker compiles much.
WORKERS := -n logical --maxprocesses 4 --dist loadfile

.PHONY: demo test quick venv lint clean

demo: venv
	$(BIN)/python -m examples.demo

test: venv
	$(BIN)/python -m pytest $(WORKERS)

# The inner loop.
quick: venv
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

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
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
