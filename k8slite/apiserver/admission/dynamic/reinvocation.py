"""Who is asked a second time: those who want it, if others changed what they had seen.

The mutating phase runs once, and once more if a policy or a webhook changed the object: the
built-in plugins again, then those who said IfNeeded and have seen an older state. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable

from k8slite.api.meta import Obj, copy

__all__ = ["Pass", "Reinvocation"]


class Reinvocation:
    """Of one request: what its passes share."""

    def __init__(self) -> None:
        self.wanted = False
        """Has anybody changed the object?"""
        self.again = False
        """Is this the second time?"""


class Pass:
    """One group (the policies, or the webhooks) through both times."""

    def __init__(self, shared: Reinvocation) -> None:
        self._shared = shared
        self._seen: set[Hashable] = set()
        self._due: set[Hashable] = set()
        self._left: Obj | None = None

    @property
    def round(self) -> int:
        """0 the first time, 1 the second."""
        return int(self._shared.again)

    def begin(self, obj: Obj | None) -> None:
        """The group's turn has come."""
        if self._shared.again and obj != self._left:
            self._call_back()

    def wants(self, who: Hashable) -> bool:
        """Is somebody to be asked now?"""
        return not self._shared.again or who in self._due

    def changed(self) -> None:
        """The one who was just asked has changed the object."""
        self._shared.wanted = True
        self._call_back()

    def may_be_asked_again(self, who: Hashable) -> None:
        """He has been asked, and wants to be again if others change the object."""
        self._seen.add(who)

    def end(self, obj: Obj | None) -> None:
        """The group is through."""
        self._left = copy(obj)

    def _call_back(self) -> None:
        self._due |= self._seen
        self._seen = set()
