# `make help` lists the targets. Everything installs into .venv on first use and is then offline.
.DEFAULT_GOAL := help
.ONESHELL:
SHELL := /bin/sh
.SHELLFLAGS := -ec
# Tests start hundreds of processes. Each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
# Tests run in so many processes at once; 0 is one after the other, in this one. Two more than there
# are cores: many tests wait for servers and clients.
TEST_PROCESSES ?= $(shell expr 2 + $$(getconf _NPROCESSORS_ONLN))
SEEDS ?= 2000
# `make test COVERAGE=1` also records what `make coverage` reports, and takes half as long again.
# `make test LONG=1` runs long proofs in full.
MEASURED := $(if $(COVERAGE),coverage run -m)
PYTEST := pytest --numprocesses $(TEST_PROCESSES) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# The pins are all that is needed. Nothing is resolved or built, so neither the version of pip nor
# a release that comes later changes what is installed.
PINNED := --no-deps --only-binary=:all: --require-hashes
DISTRIBUTIONS := halfopen mock-upstream service
PINS := build run mock lint wheels dev maintain

.PHONY: canaries help install install-dev dev demo test fuzz signals test-quick lint coverage check upstreams mutate simulate torture format bench bench-quick bench-client bench-install bench-breaker bench-layers bench-cluster bench-outbox bench-reads docs pictures wheels check-wheels container audit pins clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamps keep what is installed from being installed again, and a second run offline.
$(VENV)/.build: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install $(PINNED) -r requirements/build.txt
	@touch $@

$(VENV)/.run: $(VENV)/.build requirements/run.txt requirements/mock.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	@echo "installing what the service and the mock need (once) ..."
	@$(PIP) install $(PINNED) -r requirements/run.txt -r requirements/mock.txt
	@$(PIP) install --no-deps --no-index --no-build-isolation $(DISTRIBUTIONS:%=-e ./%)
	@$(PIP) check
	@touch $@

$(VENV)/.lint: $(VENV)/.run requirements/lint.txt
	@echo "installing what the checks need (once) ..."
	@$(PIP) install $(PINNED) -r requirements/lint.txt
	@$(PIP) check
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@echo "installing what the tests need (once) ..."
	@$(PIP) install $(PINNED) -r requirements/dev.txt
	@$(PIP) check
	@touch $@

$(VENV)/.maintain: $(VENV)/.dev requirements/maintain.txt
	@$(PIP) install $(PINNED) -r requirements/maintain.txt
	@$(PIP) check
	@touch $@

install: $(VENV)/.run ## Install what the service and the mock need
install-dev: $(VENV)/.dev $(VENV)/.lint ## Install what the tests and checks need

dev: $(VENV)/.run ## Run the mock upstream on 4010 and the service on 3000 until Ctrl-C
	@exec $(BIN)/event-service dev

demo: $(VENV)/.run ## Watch an outage and its recovery, in half a minute
	@$(BIN)/python -m demo

test: $(VENV)/.dev ## Run every test, long ones in a short form; under four minutes on two cores
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m $(MEASURED) $(PYTEST)

fuzz: $(VENV)/.dev ## Test the HTTP client with random replies and random cancellations; a minute
	@FUZZED_REPLIES=200000 ABORTED_CALLS=20000 $(BIN)/python -m pytest --quiet --numprocesses $(TEST_PROCESSES) service/tests/unit/libs/http_client/test_fuzz.py service/tests/unit/libs/http_client/test_aborts.py

signals: $(VENV)/.dev ## Send SIGINT, SIGTERM and SIGHUP at random moments, two hundred times; three minutes
	@SIGNAL_ROUNDS=50 $(BIN)/python -m pytest --quiet tests/test_signals.py

test-quick: $(VENV)/.dev ## Run the unit and integration tests, no browser; under one minute on two cores
	@$(BIN)/python -m $(PYTEST) --quiet -m 'not slow' halfopen/tests mock-upstream/tests service/tests

upstreams: tests/upstreams/node_modules/.package-lock.json ## Install the upstreams that some tests need (needs npm and its registry)

tests/upstreams/node_modules/.package-lock.json: tests/upstreams/package-lock.json
	@npm ci --prefix tests/upstreams --ignore-scripts --no-audit --no-fund --silent
	@touch $@

lint: $(VENV)/.lint ## Check format, types, import layers, dead code, dependencies, Dockerfile and workflows
	@set -x
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy demo deploy docs torture
	$(BIN)/lint-imports
	$(BIN)/vulture
	for each in $(DISTRIBUTIONS); do (cd $$each && ../$(BIN)/deptry src); done
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/kubernetes-validate --quiet --strict -k 1.33 deploy/kubernetes/*.yaml
	$(BIN)/actionlint
	$(BIN)/zizmor --offline --quiet --min-severity=medium .github

coverage: $(VENV)/.dev ## Report the coverage of the last `make test COVERAGE=1`; fail below the thresholds
	$(BIN)/python -m coverage combine --quiet --keep
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage xml --quiet
	$(BIN)/python -m coverage report --include='halfopen/src/*' --omit='halfopen/src/halfopen/redis/*' --fail-under=100
	$(BIN)/python -m coverage report --include='service/src/*' --fail-under=95
	$(BIN)/python -m coverage report --include='mock-upstream/src/*' --fail-under=95

check: ## Run everything that a change must pass: lint, tests, coverage
	@echo "make check takes about six minutes on two cores: lint one, tests four, coverage one"
	$(MAKE) lint
	$(MAKE) test COVERAGE=1
	$(MAKE) coverage

mutate: $(VENV)/.maintain ## Run mutation tests of the breaker; half an hour; fail below 95 %
	@cd halfopen && ../$(BIN)/mutmut run && ../$(BIN)/mutmut results && ../$(BIN)/mutmut export-cicd-stats >/dev/null
	@$(BIN)/python -c "$$MUTATION_SCORE" halfopen/mutants/mutmut-cicd-stats.json 95

define MUTATION_SCORE
import json, pathlib, sys
counts = json.loads(pathlib.Path(sys.argv[1]).read_text())
noticed, mutants = counts["killed"] + counts["timeout"], counts["total"] - counts["skipped"]
print(f"{noticed} of {mutants} mutants noticed: {noticed / mutants:.1%}, at least {sys.argv[2]} % wanted")
sys.exit(100 * noticed < float(sys.argv[2]) * mutants)
endef
export MUTATION_SCORE

simulate: $(VENV)/.dev ## Simulate clusters with random failures in virtual time; SEEDS=2000 of them
	@SEEDS=$(SEEDS) SCRIPT_EXAMPLES=$(or $(EXAMPLES),1000) $(BIN)/python -m $(PYTEST) --dist worksteal --quiet halfopen/tests/cluster/test_simulation.py halfopen/tests/cluster/test_scripts.py

canaries: $(VENV)/.dev ## Check that 8 processes with 1000 callers each send one call in each of 50 cooldowns; half a minute
	@PROCESSES=$(or $(PROCESSES),8) CALLERS=$(or $(CALLERS),1000) COOLDOWNS=$(or $(COOLDOWNS),50) $(BIN)/python -m pytest --quiet halfopen/tests/cluster/test_processes.py

format: $(VENV)/.lint ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: bench-install ## Compare the service with its peers; half an hour on an idle machine
	@$(BIN)/python -m benchmarks

bench-quick: bench-install ## The same in three minutes, with a wider spread
	@$(BIN)/python -m benchmarks --quick

bench-install: $(VENV)/.dev
	@$(BIN)/python -m benchmarks --install

bench-breaker: $(VENV)/.breakers ## Compare halfopen with the other breakers on PyPI
	@$(VENV)/breakers/bin/python benchmarks/breaker/compare.py

bench-client: $(VENV)/.dev ## Compare the HTTP client alone with others; a minute
	@$(BIN)/python -m benchmarks.client

bench-outbox: $(VENV)/.dev ## Compare accepting events for later with adding them now; half a minute
	@$(BIN)/python -m benchmarks --quick --only ours add-event accept accept-deliver

bench-reads: $(VENV)/.dev ## Compare reads from SQLite and PostgreSQL with SQLAlchemy, without HTTP; a minute
	@$(BIN)/python -m benchmarks.reads

bench-layers: $(VENV)/.dev ## Measure the CPU time of each layer of the service; three minutes
	@$(BIN)/python -m benchmarks.layers --server

bench-cluster: $(VENV)/.dev ## Measure healthy requests in a cluster beside the same alone; four minutes
	@$(BIN)/python -m benchmarks.cluster

$(VENV)/.breakers: $(VENV)/.build benchmarks/breaker/requirements.txt
	@$(PYTHON) -m venv --clear $(VENV)/breakers
	@$(VENV)/breakers/bin/python -m pip --quiet --disable-pip-version-check install $(PINNED) -r benchmarks/breaker/requirements.txt
	@echo "$(CURDIR)/halfopen/src" > $$($(VENV)/breakers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/halfopen.pth
	@$(VENV)/breakers/bin/python -m pip check
	@touch $@

docs: $(VENV)/.run ## Regenerate the generated pages of docs/
	@$(BIN)/python -m docs.generate

pictures: $(VENV)/.dev ## Retake the pictures of the dashboard; pngquant compresses them
	@DASHBOARD_PICTURES=$(CURDIR)/docs/images $(BIN)/python -m pytest --quiet tests/test_dashboard_states.py tests/test_dashboard_fleet.py
	@! command -v pngquant >/dev/null || pngquant --quality 60-90 --speed 1 --force --ext .png docs/images/*.png

wheels: $(VENV)/.build ## Build the wheels and source distributions
	@rm -rf dist
	@for each in $(DISTRIBUTIONS); do (cd $$each && ../$(BIN)/python -m hatchling build -d ../dist); done

check-wheels: wheels ## Test each wheel alone in an empty environment (needs a package index)
	@$(BIN)/python -m deploy.check_wheels

container: ## Build the container image without an engine and test it (needs root, buildah, debootstrap)
	@deploy/build-container.sh

SECONDS ?= 600
torture: $(VENV)/.dev ## Kill and pause the service, cut its power, break its disk; for SECONDS (600)
	@$(BIN)/python -m torture --seconds $(SECONDS)

audit: $(VENV)/.maintain ## Look for known vulnerabilities in pinned packages (needs their database)
	@$(BIN)/python -m deploy.audit $(AUDIT)

pins: $(VENV)/.maintain ## Pin the requirements in requirements/*.in, with hashes (needs a package index)
	@for each in $(PINS); do
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header requirements/$$each.in -o requirements/$$each.txt
	done

clean: ## Remove everything that was installed and built
	rm -rf $(VENV) dist build htmlcov .coverage* coverage.xml .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
