# make run    from nothing to a trained, judged agent on the embedded sample, as Kaggle would run it
# make test   the test suite
# make IMAGE=kaggle-2026-09 VENV=.venv-09 test    the test suite with the package versions of the other Kaggle image
# make test-python PYTHON=python3.12    the test suite on another installed Python, with the newest packages

PYTHON ?= python3
IMAGE ?= kaggle-2026-10
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
EPISODES ?= 8

export OMP_WAIT_POLICY ?= PASSIVE
export PIP_PROGRESS_BAR ?= on

.PHONY: parity kaggle-rehearsal test-client test-python newest run test lint type bench prove calibrate audit docs fuzz layouts crash soak coverage mutants lock licences audit-deps locked build clean distclean interrupts two-at-once check-wheels fmt pictures

run: $(READY)
	$(BIN)/python build_kernel.py --set num_episodes=$(EPISODES) --set eval_frequency=2 \
		--set checkpoint_frequency=2 --rehearse

PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder
TESTS ?= tests
test: $(READY)-dev
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) $(TESTS)

# The suite on another installed interpreter, in a separate environment such as .venv-3.12. It has the newest packages that
# pyproject.toml allows, or those of IMAGE if it is given, and the torch of requirements/torch.txt, or TORCH:
# make test-python PYTHON=python3.12 IMAGE=kaggle-2026-09 TORCH=2.10.0. A CUDA build of torch takes gigabytes.
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
GIVEN_IMAGE = $(if $(filter command environment,$(firstword $(origin IMAGE))),$(IMAGE))
OTHER = .venv-$(VERSION)$(addprefix -,$(GIVEN_IMAGE))
TORCH ?=
test-python:
	$(PYTHON) -m venv "$(OTHER)"
	"$(OTHER)/bin/python" -m pip install $(if $(TORCH),torch==$(TORCH),-r requirements/torch.txt)
	"$(OTHER)/bin/python" .ci/dependencies.py bounds > "$(OTHER)/bounds.txt"
	"$(OTHER)/bin/python" -m pip install --upgrade -r requirements/dev.txt \
		-c $(if $(GIVEN_IMAGE),requirements/$(GIVEN_IMAGE).txt,"$(OTHER)/bounds.txt")
	"$(OTHER)/bin/python" -m pip freeze
	OMP_NUM_THREADS=1 "$(OTHER)/bin/python" $(PYTEST) $(TESTS)
	"$(OTHER)/bin/python" -m tests.training_digest

build: $(READY)
	$(BIN)/python build_kernel.py

# All steps on Kaggle, with the real client and a local Kaggle: publish, push, follow, fetch, resume, probe.
kaggle-rehearsal: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kaggle_standin.walk

# The tests of all code that calls Kaggle, with another version of the client.
KAGGLE ?= 2.2.5
test-client: $(READY)-dev
	$(PIP) install --quiet "kaggle==$(KAGGLE)"
	KAGGLE_CLIENT_PYTHON="$$(cd "$(BIN)" && pwd)/python" OMP_NUM_THREADS=1 \
		$(BIN)/python $(PYTEST) tests/kaggle/test_client.py tests/kaggle/test_failures.py tests/kaggle/test_standin.py tests/kaggle/test_story.py tests/kaggle_standin; \
		status=$$?; $(PIP) install --quiet -r requirements/run.txt -c requirements/$(IMAGE).txt; exit $$status

lint: $(READY)-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell sac_kernel tests docs benchmarks build_kernel.py README.md CONTRIBUTING.md CHANGELOG.md

fmt: $(READY)-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY)-dev
	printf '%s\n' 3.11 3.12 3.13 | xargs -P 2 -I VERSION $(BIN)/mypy --python-version VERSION

# Comparison with peers: speed in a minute, then learning, which takes hours and resumes if interrupted.
bench: $(READY)-bench benchmarks/peers.toml
	$(BIN)/python -m benchmarks.market
	$(BIN)/python -m benchmarks.agent
	$(BIN)/python -m benchmarks.agent --memory
	for how in tuned same shipped; do $(BIN)/python -m benchmarks.time_to_mark --how $$how || exit 1; done
	$(BIN)/python -m benchmarks.one_path
	$(BIN)/python -m benchmarks.public_tasks

# Settings of this project and its peers for `bench`: a search of 15 minutes, run if the file is missing.
benchmarks/peers.toml: | $(READY)-bench
	$(BIN)/python -m benchmarks.tune_peers

# The default agent on synthetic markets with a known optimum; PROVE=--short takes about a minute.
prove: $(READY)
	$(BIN)/python -m benchmarks.prove $(PROVE)

# Error rates of the verdict: how often it says "edge" without an edge and with one; two processes.
calibrate: $(READY)-dev
	$(BIN)/python -m benchmarks.calibrate
	$(BIN)/python -m benchmarks.null_markets --episodes 2 --workers 2

audit: $(READY)-dev
	$(BIN)/python -m benchmarks.random_walk

# API pages from the docstrings: build/docs/sac_kernel.html
docs: $(READY)-docs
	$(BIN)/python -W ignore -m pdoc --docformat numpy -o build/docs sac_kernel

# Pictures of the first run for the README; needs Chromium or Chrome, and `make run` before it.
pictures: $(READY)
	$(BIN)/python -m benchmarks.pictures

fuzz: $(READY)-dev
	$(BIN)/python -m tests.fuzz_bars --count 20000
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz_files --count 20000

# The table of docs/layouts.md: what becomes of files as people have them.
layouts: $(READY)-dev
	$(BIN)/python -m tests.layout_table docs/layouts.md

# Kill a run 200 times, at random moments and inside writes; the final digest must not change: about 10 minutes.
crash: $(READY)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.crash --kills 200

# Stop paper, publish, fetch and rehearse 200 times, at random moments, by Ctrl-C, SIGTERM and SIGKILL: hours.
interrupts: $(READY)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.commands_at_random interrupts --count 200

# Two commands at once, 200 times: each ends as it ends alone, or is refused because of the other.
two-at-once: $(READY)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.commands_at_random two --count 200

# Two million environment steps: growth of memory and files.
soak: $(READY)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak --steps 2000000

# Line and branch coverage of the suite, with the lines that are not covered. The soak is left out: tracing changes its
# memory use.
coverage: $(READY)-trust
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run $(PYTEST) \
		--ignore tests/experiment/test_soak.py
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

# Sampled mutants of the four modules of accounting, learning and state; docs/trust.md has the score.
mutants: $(READY)-trust
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants

lock: $(READY)-trust
	$(BIN)/python .ci/dependencies.py lock

licences: $(READY)-dev
	$(BIN)/python .ci/dependencies.py licences

audit-deps: $(READY)-trust
	$(BIN)/python .ci/dependencies.py audit

# The locked environment, every hash checked; torch comes first, from the index of your choice.
locked:
	$(PYTHON) -m venv "$(VENV)"
	$(PIP) install -r requirements/torch.txt
	$(PIP) install --require-hashes -r requirements/lock-$(IMAGE).txt
	touch $(READY) $(READY)-dev

# The exported agent against torch: the short tests, then a million random states of MODEL.
MODEL ?= outputs/agent_1_final.pt
parity: $(READY)-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/live/test_export.py
	$(BIN)/python -m benchmarks.export "$(MODEL)"

# The newest packages that pyproject.toml allows instead of those of the image; torch stays.
newest: $(READY)-dev
	$(BIN)/python .ci/dependencies.py bounds > "$(VENV)/bounds.txt"
	$(PIP) install --upgrade -r requirements/dev.txt -c "$(VENV)/bounds.txt"

check-wheels:
	$(PYTHON) .ci/check_wheels.py

# What can be built or fetched again. Outputs, rehearsals, records of runs, bars and the ledger of trials stay.
clean:
	rm -rf build/wheels build/docs build/prove build/*/datasets build/*/probe build/*/train.ipynb build/*/kernel-metadata.json
	rm -rf build/*/rehearsal/input build/*/rehearsal/built .pytest_cache .mypy_cache .ruff_cache .hypothesis
	git checkout -- kernel-metadata.json

# Everything that a clone has beyond its source, bars and models excepted; it asks first.
distclean:
	@printf 'Delete build/ and outputs/ with all fetched models, reports and saved states? Type yes: '; \
		read answer && [ "$$answer" = yes ]
	$(MAKE) clean
	rm -rf build outputs

$(READY): requirements/torch.txt requirements/run.txt requirements/$(IMAGE).txt
	$(PYTHON) -m venv "$(VENV)"
	@echo "step 1 of 2: torch, about 200 MB for the CPU build"
	$(PIP) install -r requirements/torch.txt
	@echo "step 2 of 2: the packages of $(IMAGE)"
	$(PIP) install -r requirements/run.txt -c requirements/$(IMAGE).txt
	touch $@

$(READY)-dev: $(READY) requirements/dev.txt
	$(PIP) install -r requirements/dev.txt -c requirements/$(IMAGE).txt
	touch $@

$(READY)-trust: $(READY)-dev requirements/trust.txt
	$(PIP) install -r requirements/trust.txt -c requirements/$(IMAGE).txt
	touch $@

$(READY)-bench: $(READY) requirements/bench.txt
	$(PIP) install -r requirements/bench.txt -c requirements/$(IMAGE).txt
	touch $@

$(READY)-docs: $(READY) requirements/docs.txt
	$(PIP) install -r requirements/docs.txt -c requirements/$(IMAGE).txt
	touch $@
