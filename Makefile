# Needs Python 3.11 or newer, and make. Everything goes into .venv; see .ci/setup.

PACKAGES := raftkv netsim k8slite bench
WITH_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: setup test lint demo clean

setup:
	@.ci/setup

test: lint
	$(WITH_VENV) python -m pytest -q --durations=15

lint: setup
	.venv/bin/ruff check $(PACKAGES) tests
	.venv/bin/ruff format --check $(PACKAGES) tests
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache --no-logo

demo: setup
	$(WITH_VENV) k8slite demo

clean:
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
