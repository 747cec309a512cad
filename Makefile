# Needs Python 3.11 or newer, and make. Everything goes into .venv; see .ci/setup.

PACKAGES := raftkv netsim k8slite bench
WITH_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: setup test lint demo soak lock clean

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

# Real members under real faults, until stopped. Simulated ones: SIM_SEEDS=0:5000 make test
soak: setup
	.venv/bin/python -m tests.campaign --seconds 0

# After a change of dependencies in pyproject.toml; pins that still fit are kept.
lock:
	.venv/bin/python -m pip install -q uv
	.venv/bin/uv pip compile -q --no-header --no-emit-index-url --no-emit-find-links \
		--no-annotate --generate-hashes --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
