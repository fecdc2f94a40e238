# Every target sets up what it needs by itself: `git clone`, then `make serve` or `make test`, is all there is to it.

BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:

.PHONY: help
help: ## this list
	@echo 'Lifesign. make TARGET [ARGS="..."]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s  %s\n", $$1, $$2 }' Makefile

.PHONY: serve
serve: .venv/.serve ## run the server on this machine (ARGS="--port 9000 --data-dir DIR")
	@exec $(BIN)/lifesign serve $(ARGS)

.PHONY: demo
demo: .venv/.serve ## an outage from silence to recovery, with real mails and webhooks, in half a minute
	@exec $(BIN)/lifesign demo $(ARGS)

.PHONY: demo-web
demo-web: .venv/.serve ## a server with a month of history, to look around in (ARGS="--days 7 --port 9000 --no-browser")
	@exec $(BIN)/lifesign demo --web $(ARGS)

.PHONY: test
test: lint types .venv/.foreign ## everything that must hold: lint, types, and the tests on SQLite and PostgreSQL (ARGS="-k lease")
	@# Twice as many as there are processors: tests wait for databases and for each other's processes.
	@$(BIN)/pytest --numprocesses $$((2 * $$(nproc))) --maxprocesses 8 --dist worksteal $(ARGS)

.PHONY: test-long
test-long: export LIFESIGN_TEST_PROFILE = long
test-long: test ## the same, with a longer look wherever tests try things at random

.PHONY: test-model
test-model: .venv/.dev ## what must hold of bots with a real model (LIFESIGN_TEST_MODEL_URL=http://127.0.0.1:8080/v1)
	@$(BIN)/pytest -m real_model $(ARGS) tests/bots/test_real_model.py

.PHONY: faults
faults: .venv/.dev ## kill servers at random moments 200 times, and count what was lost (ARGS="--kills 50 --seed 7")
	@$(BIN)/python -m tests.faults.killing $(ARGS)

.PHONY: faults-spans
faults-spans: .venv/.dev ## the same while they take spans, 20 times on each store (ARGS="--kills 5 --stores clickhouse")
	@$(BIN)/python -m tests.faults.killing_spans $(ARGS)

.PHONY: lint
lint: .venv/.dev ## style, formatting and which module may import which
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check .
	@tools/quietly $(BIN)/lint-imports --no-logo

.PHONY: types
types: .venv/.dev ## mypy --strict
	@$(BIN)/mypy

.PHONY: fmt
fmt: .venv/.dev ## format, and fix what can be fixed without judgement
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

.PHONY: bench
bench: .venv/.dev ## measure: the benchmarks, which need wrk
	@tools/need wrk wrk
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: realdata
realdata: .venv/.dev ## fetch two clips of faces, and keep the traces of skin colour that tests measure them by
	@$(BIN)/python -m tests.vitals.realdata

.PHONY: pin
pin: ## write constraints.txt anew, with the newest versions that fit
	@tools/pin

.PHONY: clean
clean: ## remove the virtual environment and every cache; data/ stays
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/.serve: pyproject.toml constraints.txt tools/setup
	@tools/setup '.[agents,vitals-video]'
	@touch $@

# Clients that others wrote, in an environment of their own: they need older versions of what we need.
.venv/.foreign: tests/pings/foreign/constraints.txt .venv/.dev
	@$(BIN)/python -m venv --clear .venv/foreign
	@.venv/foreign/bin/python -m pip install --quiet --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Whoever develops can serve as well.
.venv/.dev: pyproject.toml constraints.txt tools/setup
	@tools/setup '.[dev]'
	@touch .venv/.serve $@
