"""The replicated table of members: who they are, where they are reached, who is gone for ever.

Raft itself knows ids alone. Names and addresses travel beside it: a membership change carries a
`member_add` or `member_remove` command as its context, which every replica applies when the change
commits, and the leader publishes (`member_info`) what members tell of themselves. So a member that
joins, or returns after years, finds the others in its own state.

Ids that were removed stay in the table: none is ever used again, for a machine that forgot what it
had promised under an id could break what a majority relies on. For the same reason the first
incarnation that was published for an id counts for ever.

`lineage` tells apart the cluster before and after a backup was restored: 0 for one that was founded
without, else a number that all members restored from the same file share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from raftkv.errors import MemberExists, MemberNotFound

__all__ = ["MemberInfo", "MemberTable"]


class MemberInfo(NamedTuple):
    """Addresses are HOST:PORT, empty where unknown; incarnation 0 is one not known yet.

    promote: a learner that becomes a voter by itself once it has caught up.
    """

    id: int
    name: str
    peer_address: str
    client_address: str = ""
    incarnation: int = 0
    promote: bool = False


class MemberTable:
    __slots__ = ("_infos", "_removed", "changes", "lineage")

    def __init__(self, lineage: int = 0) -> None:
        self._infos: dict[int, MemberInfo] = {}
        self._removed: dict[int, None] = {}
        self.lineage = lineage
        self.changes = 0
        """Counts changes since this table was made: cheap to compare, no part of the state."""

    def __iter__(self) -> Iterator[MemberInfo]:
        """In order of id."""
        return iter([self._infos[id_] for id_ in sorted(self._infos)])

    def get(self, member: int) -> MemberInfo | None:
        return self._infos.get(member)

    def is_removed(self, member: int) -> bool:
        return member in self._removed

    def add(self, member: int, name: str, peer_address: str, promote: bool) -> None:
        """Raises MemberExists, also for an id that was removed."""
        self.check_new(member, name, peer_address)
        self._set(MemberInfo(member, name, peer_address, promote=promote))

    def check_new(self, member: int, name: str, peer_address: str) -> None:
        """Raise MemberExists where `add` would."""
        if member in self._removed:
            raise MemberExists(
                f"{MemberExists.text}: id {member} was removed before, and ids are not used "
                "again; choose a name that ends with another number"
            )
        for info in self._infos.values():
            if member == info.id or (name and name == info.name):
                raise MemberExists(f"{MemberExists.text}: {info.name or '-'} has id {info.id}")
            if peer_address == info.peer_address:
                raise MemberExists(
                    f"{MemberExists.text}: {peer_address} is the address of {info.name or info.id}"
                )

    def update(self, told: MemberInfo) -> None:
        """What a member tells of itself. Ignored for one that was removed."""
        if told.id in self._removed:
            return
        known = self._infos.get(told.id)
        if known is not None:
            incarnation = known.incarnation or told.incarnation
            told = told._replace(incarnation=incarnation, promote=known.promote)
        if told != known:
            self._set(told)

    def remove(self, member: int) -> None:
        """Raises MemberNotFound."""
        if member in self._removed:
            raise MemberNotFound
        self._infos.pop(member, None)
        self._removed[member] = None
        self.changes += 1

    def _set(self, info: MemberInfo) -> None:
        self._infos[info.id] = info
        self.changes += 1

    # --- as part of a snapshot ------------------------------------------------------------------

    def dump(self) -> list[Any]:
        return [self.lineage, sorted(self._removed), list(self)]

    @classmethod
    def load(cls, dumped: Sequence[Any]) -> MemberTable:
        lineage, removed, infos = dumped
        table = cls(lineage)
        table._removed = dict.fromkeys(removed)
        table._infos = {info[0]: MemberInfo(*info) for info in infos}
        return table
