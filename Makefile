# Every target sets itself up: own .venv, locked versions. A second run starts at once.
SHELL := /bin/sh
ARGS ?=
BIN := .venv/bin

.PHONY: demo test check soak bench bench-live lock sdl systems clean

demo: .venv/ready
	@$(BIN)/c360 demo $(ARGS)

test: .venv/ready
	@$(BIN)/python -m pytest -q -n 4 --dist worksteal $(ARGS)

check: .venv/ready
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports >/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m pytest -q --no-header tests/test_packaging.py >/dev/null || $(BIN)/python -m pytest -q tests/test_packaging.py

soak: .venv/ready
	@C360_SOAK=$${C360_SOAK:-full} $(BIN)/python -m pytest -q -m soak -n 3 $(ARGS)

bench: .venv/ready
	@$(BIN)/python -m benchmarks.strawberry $(ARGS)

bench-live: .venv/ready
	@$(BIN)/python -m benchmarks.live $(ARGS)

lock: .venv/ready
	@$(BIN)/uv lock

sdl: .venv/ready
	@$(BIN)/c360 schema > schema/schema.graphql

systems: .venv/ready
	@$(BIN)/c360 systems --markdown > docs/systems.md

clean:
	rm -rf .venv .uv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/node/node_modules

.venv/ready: pyproject.toml uv.lock scripts/setup.sh
	@sh scripts/setup.sh
	@touch $@
