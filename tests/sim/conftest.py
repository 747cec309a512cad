"""What the swarms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sim.pool import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """The workers; started when the first seed is played."""
    with Pool() as workers:
        yield workers
