"""A watch shows the history: etcd's seven guarantees, judged for each watcher.

Ordered, Unique, Atomic (no revision in two pieces), Reliable (no gap), Filter (nothing that was not
asked for), Resumable (over lost connections and members it is still one watch), Bookmarkable
(`complete_to`: a progress says that everything up to it was shown). And of each event: its create
revision, and the value before it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from tests.checkers.replayed import Change

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
    no_put: bool = False,
    previous: bool = False,
    compactions: Container[int] = (),
) -> None:
    """Compare what a watcher from revision `start` on [key, end) got with all changes.

    `complete_to`: a revision that it certainly was shown everything up to (None: it may have
    stopped anywhere). `previous`: it asked for the values before; those of a revision to which
    the store was compacted may be missing.
    """
    wanted = [
        change
        for change in changes
        if change.revision >= start
        and key <= change.key
        and (end is None or change.key < end)
        and not (no_put and change.value is not None)
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
        if expected is None or change[:4] != expected[:4]:
            raise WatchViolation(f"shown {change} where {expected} was next")
        wanted_before = (expected.previous,) if previous else (None,)
        if previous and change.revision in compactions:
            wanted_before = (expected.previous, None)
        if change.previous not in wanted_before:
            raise WatchViolation(f"shown {change} with another value before than {expected}")
    if len(shown) < len(wanted):
        after = wanted[len(shown)]
        if shown and shown[-1].revision == after.revision:
            raise WatchViolation(f"revision {after.revision} was shown in part")
        if complete_to is not None and after.revision <= complete_to:
            raise WatchViolation(f"never shown: {after}")
