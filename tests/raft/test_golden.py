"""The golden traces; see story.py for their language.

`pytest tests/raft/test_golden.py --regenerate-traces` writes them anew: then read the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.raft.story import Story

STORIES = sorted((Path(__file__).parent / "golden").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_golden(path: Path, pytestconfig: pytest.Config) -> None:
    expected = path.read_text()
    found = Story().run(expected)
    if pytestconfig.getoption("--regenerate-traces"):
        path.write_text(found)
        return
    assert found.splitlines() == expected.splitlines()


def test_there_are_stories() -> None:
    assert len(STORIES) >= 20
