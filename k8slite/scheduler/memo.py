"""What was found of each node for pods of one shape (pure).

What follows from a pod's shape and a node alone is worked out once, and again only for nodes that
have changed since: equal pods share the work. Nodes are known by their index in the snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k8slite.scheduler.framework import Rejection
    from k8slite.scheduler.node_info import NodeInfo

__all__ = ["LOG_MAX", "ChangeLog", "Look", "Memo", "Verdict"]

LOG_MAX = 16_384
"""Changes of nodes that are kept; a memo that is further behind is made anew."""
Verdict = tuple["Rejection", str]
"""Why not, and which plugin says so."""
Look = Callable[["NodeInfo"], tuple[Verdict | None, int]]


class ChangeLog:
    """Names of nodes in the order in which they changed; `first` is the number of the oldest."""

    __slots__ = ("first", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.first = 0

    def append(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) > LOG_MAX:
            half = LOG_MAX // 2
            self.first += half
            del self.names[:half]


class Memo:
    """`totals`: of each node the sum of its absolute scores, None where `refusals` says why not."""

    __slots__ = ("nodes", "position", "refusals", "totals")

    def __init__(self) -> None:
        self.nodes: Sequence[NodeInfo] = ()
        self.totals: list[int | None] = []
        self.refusals: dict[int, Verdict] = {}
        self.position = -1

    def refresh(
        self, nodes: Sequence[NodeInfo], log: ChangeLog, index: Mapping[str, int], look: Look
    ) -> None:
        """Look at what is new. `nodes` is the same list as long as the nodes are the same; `index`
        says where in it each of them is."""
        behind = self.position - log.first
        changed: Sequence[int]
        if nodes is not self.nodes or behind < 0:
            self.nodes, self.totals, self.refusals = nodes, [None] * len(nodes), {}
            changed = range(len(nodes))
        else:
            names = dict.fromkeys(log.names[behind:])
            changed = [index[own] for own in names if own in index]
        for i in changed:
            verdict, total = look(nodes[i])
            if verdict is None:
                self.totals[i] = total
                self.refusals.pop(i, None)
            else:
                self.totals[i] = None
                self.refusals[i] = verdict
        self.position = log.first + len(log.names)
