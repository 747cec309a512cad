"""Shared rules of all tests: a marker says what a test needs; without it, the test is skipped."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about us.
settings.register_profile(
    "suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-traces",
        action="store_true",
        help="write the golden traces of the Raft core anew (tests/raft/golden)",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    for marker in item.iter_markers("tool"):
        if shutil.which(marker.args[0]) is None:
            pytest.skip(f"needs {marker.args[0]} on PATH")
