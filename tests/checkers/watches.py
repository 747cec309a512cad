"""A watch shows the history: in order, without gaps, no revision twice, none in two pieces."""

from __future__ import annotations

from collections.abc import Sequence

from tests.checkers.revisions import Change

__all__ = ["WatchViolation", "check_watch"]


class WatchViolation(AssertionError):
    """A watcher was shown something else than what happened."""


def check_watch(
    batches: Sequence[Sequence[Change]],
    changes: Sequence[Change],
    *,
    start: int,
    key: bytes = b"",
    end: bytes | None = None,
    complete_to: int | None = None,
) -> None:
    """Compare what a watcher from revision `start` on [key, end) got with all changes.

    `complete_to`: a revision that it certainly was shown everything up to (None: it may have
    stopped anywhere).
    """
    wanted = [
        change
        for change in changes
        if change.revision >= start and key <= change.key and (end is None or change.key < end)
    ]
    shown: list[Change] = []
    for batch in batches:
        if shown and batch and batch[0].revision <= shown[-1].revision:
            raise WatchViolation(
                f"revision {batch[0].revision} in a batch after {shown[-1].revision} was shown"
            )
        shown.extend(batch)
    for position, change in enumerate(shown):
        expected = wanted[position] if position < len(wanted) else None
        if change != expected:
            raise WatchViolation(f"shown {change} where {expected} was next")
    if len(shown) < len(wanted):
        after = wanted[len(shown)]
        if shown and shown[-1].revision == after.revision:
            raise WatchViolation(f"revision {after.revision} was shown in part")
        if complete_to is not None and after.revision <= complete_to:
            raise WatchViolation(f"never shown: {after}")
