"""Raft's promises, watched from outside: one leader a term, one log, terms that only grow.

Feed it what members show of themselves; it raises Disagreement at the first contradiction.
"""

from __future__ import annotations

__all__ = ["Agreement", "Disagreement"]


class Disagreement(AssertionError):
    """Two members contradict each other, or one itself."""


class Agreement:
    """What was ever seen, and therefore must stay true."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        """Who led which term."""
        self._entries: dict[int, tuple[int, int, int]] = {}
        self._terms: dict[int, int] = {}
        self._commits: dict[tuple[int, int], int] = {}
        self._states: dict[int, tuple[int, int]] = {}
        self._lost: dict[int, None] = {}

    def lost(self, member: int) -> None:
        """Its disk is another one: what it shows from now on means nothing."""
        self._lost[member] = None

    def saw_leader(self, member: int, term: int) -> None:
        """Election safety: at most one leader in a term."""
        if member in self._lost:
            return
        other = self.leaders.setdefault(term, member)
        if other != member:
            raise Disagreement(f"term {term} has two leaders: {other} and {member}")

    def saw_member(self, member: int, life: int, term: int, commit: int) -> None:
        """A member's term never goes back, restarts included; its commit not within a life."""
        if member in self._lost:
            return
        before = self._terms.get(member, 0)
        if term < before:
            raise Disagreement(f"member {member} went back from term {before} to {term}")
        self._terms[member] = term
        index = self._commits.get((member, life), 0)
        if commit < index:
            raise Disagreement(f"member {member} went back from commit {index} to {commit}")
        self._commits[member, life] = commit

    def saw_committed(self, member: int, index: int, term: int, digest: int) -> None:
        """State machine safety: one entry at a committed index, whoever shows it."""
        if member in self._lost:
            return
        other = self._entries.setdefault(index, (term, digest, member))
        if other[:2] != (term, digest):
            raise Disagreement(
                f"index {index} is {other[:2]} at member {other[2]} "
                f"and {(term, digest)} at member {member}"
            )

    def saw_state(self, member: int, applied: int, digest: int) -> None:
        """Whoever applied the same entries holds the same state."""
        other = self._states.setdefault(applied, (digest, member))
        if other[0] != digest:
            raise Disagreement(f"the state at {applied} differs between {other[1]} and {member}")

    @property
    def committed(self) -> int:
        """How many indexes were compared."""
        return len(self._entries)
