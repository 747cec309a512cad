"""The golden traces; see story.py for their language. REWRITE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.raft.story import Story

STORIES = sorted((Path(__file__).parent / "golden").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    expected = path.read_text()
    found = Story().run(expected)
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(found)
        return
    assert found.splitlines() == expected.splitlines()


def test_there_are_stories() -> None:
    assert len(STORIES) >= 10
