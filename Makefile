# Every target sets up .venv with the locked versions first; a second run starts at once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint bench demo-models clean

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

demo: $(READY) ## the main job, in under two minutes: an edge and a cloud process on this machine
	$(BIN)/foredraft demo

test: $(READY)
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/foredraft bench all

demo-models: $(READY) ## train the bundled pair anew (up to 90 minutes on 2 cores)
	$(BIN)/python -m foredraft.demo_models.recipe

clean:
	rm -rf .venv .demo-models .mypy_cache .ruff_cache .pytest_cache .hypothesis
