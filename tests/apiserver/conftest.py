from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from k8slite.apiserver import Apiserver
from tests.apiserver.hooks import Hooks, serve_hooks
from tests.apiserver.support import Session, open_session, open_test_apiserver


@pytest.fixture
async def server() -> AsyncIterator[Apiserver]:
    async with open_test_apiserver() as running:
        yield running


@pytest.fixture
async def session(server: Apiserver) -> AsyncIterator[Session]:
    async with open_session(server) as opened:
        yield opened


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    async with serve_hooks(tmp_path) as running:
        yield running
