# Everything that a person or CI runs here; `make help` lists it.
# The environment in .venv is made when a target first needs it, from requirements.lock.

VENV   ?= .venv
IMAGES ?=
COVERAGE ?=
ADVISORIES ?= pypi
BIN    := $(VENV)/bin
MADE   := $(VENV)/.made
PARALLEL := --numprocesses auto --dist loadscope --no-loadscope-reorder
SBOMS  := docker/requirements.lock:fer-batch requirements.lock:fer-batch-development
MEASURED := $(if $(COVERAGE),--cov --cov-report=term)

# uv brings certificates of its own; a machine may need those that its owner added.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= true
endif

# Containers often set it, but the tests start Python hundreds of times: it must not compile each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
.PHONY: help demo check test test-browser pictures test-faults lint lint-sql bench bench-model bench-coverage up down status lock sbom audit clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(MADE) ## Run a day of synthetic faces through Airflow; IMAGES=folder uses your photographs
	@$(BIN)/fer-batch demo $(if $(IMAGES),--images "$(IMAGES)")

check: lint ## Run lint and the unit tests: no server, no Airflow, no TensorFlow; COVERAGE=1 measures coverage
	@$(BIN)/pytest $(PARALLEL) -m unit $(MEASURED)

test: lint lint-sql ## Run lint and every test; COVERAGE=1 measures the coverage of the unit tests
	@$(BIN)/pytest $(PARALLEL) -m "not browser" $(MEASURED)

test-browser: $(MADE) ## Open the report and the page of Airflow's UI in Chromium, and check them with axe
	@$(BIN)/pytest -rs tests/browser

pictures: $(MADE) ## Take the pictures of the docs from the data of `fer-batch demo --days 28`
	@$(BIN)/python docs/make_pictures.py

test-faults: $(MADE) ## Run the long tests: 20 seeds for each kill, 10,000 hostile images, fuzzing
	@FER_FAULT_SEEDS=20 FER_FUZZ_IMAGES=10000 FER_FUZZ_SECONDS=600 FER_MANY_KEYS=100000 \
	  $(BIN)/pytest $(PARALLEL) -rP tests/faults tests/hostile

bench: $(MADE) ## Compare the speed of fer-batch with simpler programs, on one day of images
	@$(BIN)/python -m benchmarks.day

bench-model: $(MADE) ## Compare the speed of the CNN with Keras and the network of the package fer
	@$(BIN)/python -m benchmarks.model

bench-coverage: $(MADE) ## Simulate how often the published intervals contain the true rates
	@$(BIN)/python -m benchmarks.coverage

lint: $(MADE) ## Check style, types, spelling and import rules
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/codespell & spelling=$$!; $(BIN)/lint-imports --no-logo & imports=$$!; \
	$(BIN)/mypy; types=$$?; wait $$spelling && wait $$imports && exit $$types

# Two processes, not sqlfluff's own pool, whose semaphores Python reports as leaked at times.
lint-sql: $(MADE) ## Check the syntax and style of all SQL
	@$(BIN)/sqlfluff lint --disable-progress-bar fer_batch & statements=$$!; \
	$(BIN)/sqlfluff lint --disable-progress-bar sql; others=$$?; wait $$statements && exit $$others

up: $(MADE) ## Start PostgreSQL, the S3 server and Airflow, and leave them running
	@$(BIN)/fer-batch stack up

down: $(MADE) ## Stop the servers that `make up` started; the data remains
	@$(BIN)/fer-batch stack down

status: $(MADE) ## Show which servers run, and their addresses
	@$(BIN)/fer-batch stack status

lock: $(MADE) ## Resolve and upgrade the dependencies in the two lock files
	@$(FIND_UV); \
	resolve() { "$$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate pyproject.toml "$$@"; }; \
	resolve --upgrade --all-extras --group dev --group browser --group supply -o requirements.lock && \
	resolve --upgrade --extra airflow --extra celery --extra export --extra notify -c requirements.lock \
	  -o docker/requirements.lock

sbom: $(MADE) ## List the packages of the lock files as CycloneDX documents in dist/
	@mkdir -p dist
	@for name in $(SBOMS); do \
	  lock=$${name%%:*}; file=dist/$${name##*:}.cdx.json; \
	  $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	    --no-validate --of JSON -o $$file $$lock 2>/dev/null || { echo "$$lock cannot be read by cyclonedx-py" >&2; exit 1; }; \
	  echo "$$file lists the packages of $$lock"; \
	done

# What is not looked up is not known to be safe: --strict fails for it, and so does this target
# if the service does not answer. Nothing is downloaded or installed.
audit: $(MADE) ## Look up known vulnerabilities of all locked packages; ADVISORIES=osv asks another service
	@found=$$($(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	  --vulnerability-service $(ADVISORIES) -r requirements.lock 2>&1); code=$$?; \
	case $$found in \
	  *"nown vulnerabilit"*) echo "$$found"; exit $$code;; \
	esac; \
	echo "$$found" | tail -n 2 >&2; \
	echo "Nothing was audited: the advisory service $(ADVISORIES) did not answer for every package." \
	  "Try again, or another one: make audit ADVISORIES=osv" >&2; \
	exit 1

clean: ## Stop the servers; remove the environment and all generated files; the data remains
	@if [ -x $(BIN)/fer-batch ]; then $(BIN)/fer-batch stack down; $(BIN)/fer-batch stack down --demo; fi
	@rm -rf $(VENV) build dist airflow_page/dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Sets $uv: the machine's own if it works, else one in the environment, from its hashed lock.
define FIND_UV
uv=uv; \
if ! uv --version >/dev/null 2>&1; then \
  uv=$(BIN)/uv; \
  [ -x "$$uv" ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
    --require-hashes -r requirements-uv.lock; \
fi
endef

# Sets $python: the first Python of a supported version that can make an environment.
define FIND_PYTHON
python=; seen=; \
for name in python3 python3.12 python3.11; do \
  version=$$($$name -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
  seen="$$seen $$name is $$version;"; \
  case $$version in 3.11|3.12) python=$$name; break;; esac; \
done; \
if [ -z "$$python" ]; then \
  echo "fer-batch needs Python 3.11 or 3.12;$${seen:- there is no python3;} install one of them." >&2; \
  exit 1; \
fi; \
if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
  echo "$$python cannot make environments; install its venv module (Debian: apt install python3-venv)." >&2; \
  exit 1; \
fi
endef

$(BIN)/python:
	@$(FIND_PYTHON); echo "Making the environment in $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV)

# Not compiled here: Python compiles what it imports, and most packages are for training and tests.
$(MADE): requirements.lock requirements-uv.lock pyproject.toml airflow_page/pyproject.toml \
  | $(BIN)/python
	@$(FIND_UV); echo "Installing from requirements.lock (3 GB on the disk)"; \
	"$$uv" pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	"$$uv" pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps \
	  -e . -e airflow_page
	@touch $@
