"""What a majority has agreed on. Pure arithmetic over the voters' answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

__all__ = ["Ballot", "count_votes", "has_quorum", "majority", "majority_index"]


class Ballot(Enum):
    WON = "won"
    LOST = "lost"
    OPEN = "open"


def majority(size: int) -> int:
    """The smallest number of voters that any two of such groups share one member."""
    assert size > 0
    return size // 2 + 1


def majority_index(values: Sequence[int]) -> int:
    """The highest value that a majority has reached, given each voter's own.

    Sorted upwards, the element at (n-1)//2 has a majority at or above it.
    """
    assert values
    return sorted(values)[(len(values) - 1) // 2]


def count_votes(voters: Sequence[int], votes: Mapping[int, bool]) -> Ballot:
    """votes: answers so far by member id; those of non-voters do not count."""
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    assert granted + refused <= len(voters)
    if granted >= needed:
        return Ballot.WON
    return Ballot.LOST if refused > len(voters) - needed else Ballot.OPEN


def has_quorum(voters: Sequence[int], present: Iterable[int]) -> bool:
    """Whether the voters among `present` (each named once) are a majority."""
    count = sum(1 for member in present if member in voters)
    assert count <= len(voters)
    return count >= majority(len(voters))
