"""What a plugin is: one class, with a method for each extension point at which it has a say.

The extension points are kube-scheduler's, in the order in which a pod meets them: PreEnqueue,
QueueSort, PreFilter, Filter, PostFilter, PreScore, Score (with NormalizeScore), Reserve, Permit,
PreBind, Bind, PostBind. `EXTENSION_POINTS` lists them; a plugin takes part in those whose method it
has. It is made once for each profile, as `factory(args, handle)`.

Up to Permit a plugin does no I/O: what it looks at is the snapshot. `prepare` methods (pre_filter,
pre_score) return SKIP when they have nothing to say about a pod, so that an ordinary pod costs only
what it uses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from attrs import field, frozen

from k8slite.scheduler.events import Wakes
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

if TYPE_CHECKING:
    from k8slite.scheduler.decide import Decision
    from k8slite.scheduler.services import Services

__all__ = [
    "EXTENSION_POINTS", "SCORE_MAX", "SKIP",
    "Bind", "BindFailed", "Factory", "Filter", "Handle", "InvalidArgs", "Only", "Permit", "Plugin",
    "PostBind", "PostFilter", "PostFilterResult", "PreBind", "PreEnqueue", "PreFilter", "PreScore",
    "QueueSort", "Rejection", "Reserve", "Score", "Wait", "scale_to_max", "wakes_of",
]  # fmt: skip

SCORE_MAX = 100


class Skip(Enum):
    SKIP = "nothing to say about this pod"


SKIP: Final = Skip.SKIP


class InvalidArgs(ValueError):
    """A plugin cannot work with its pluginConfig; the text names the field."""


class BindFailed(Exception):
    """PreBind or Bind did not succeed; the pod must be decided on again."""


class Rejection(NamedTuple):
    """Why not. `resolvable`: it could change if other pods went away."""

    reasons: tuple[str, ...]
    resolvable: bool = False


class Only(NamedTuple):
    """From pre_filter: no other nodes than these need be looked at."""

    nodes: Collection[str]
    state: Any


class Wait(NamedTuple):
    """From permit: the binding waits until the plugin allows it, for so long at most."""

    seconds: float


class PostFilterResult(NamedTuple):
    """`node`: where there will be room, "" for nowhere (None: leave the nomination as it is);
    `message` is what to add to the pod's own. `work` is done beside the loop (deleting victims);
    until it ends the pod is not tried again."""

    node: str | None
    message: str = ""
    work: Callable[[], Awaitable[None]] | None = None

    @property
    def made_room(self) -> bool:
        return bool(self.node)


@frozen
class Handle:
    """What a plugin may reach. Pure tests give a snapshot alone."""

    snapshot: Snapshot = field(factory=Snapshot)
    scheduler_name: str = "default-scheduler"
    services: Services | None = None
    """What the scheduler does for plugins that bind, preempt or wait."""


class Plugin(Protocol):
    @property
    def name(self) -> str: ...


Factory = Callable[[Mapping[str, Any], Handle], Plugin]
"""Makes a plugin of its pluginConfig args. Raises InvalidArgs."""


@runtime_checkable
class PreEnqueue(Plugin, Protocol):
    def pre_enqueue(self, pod: PodInfo) -> Rejection | None:
        """A pod that is rejected here does not enter the queue until one of its `wakes`."""
        ...


@runtime_checkable
class QueueSort(Plugin, Protocol):
    def sort_key(self, pod: PodInfo) -> tuple[Any, ...]:
        """The least key goes first; of equals, the one that came first."""
        ...


@runtime_checkable
class PreFilter(Plugin, Protocol):
    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        """What `filter` needs of the pod, Only(nodes, state), or SKIP; a Rejection if no node at
        all will do."""
        ...


@runtime_checkable
class Filter(Plugin, Protocol):
    """A class attribute `local = True` says that the verdict follows from the pod's shape
    (`PodInfo.shape`) and the node alone, so that it can be remembered until the node changes."""

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None: ...


@runtime_checkable
class PostFilter(Plugin, Protocol):
    def post_filter(
        self, pod: PodInfo, failure: Decision
    ) -> PostFilterResult | Awaitable[PostFilterResult]: ...


@runtime_checkable
class PreScore(Plugin, Protocol):
    def pre_score(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        """What `score` needs, or SKIP."""
        ...


@runtime_checkable
class Score(Plugin, Protocol):
    """Raw scores are any numbers; a method `normalize(scores)` maps those of all nodes to
    0..SCORE_MAX. Without one they must be within already. A class attribute `absolute = True` says
    that they are, and follow from the pod's shape and the node alone."""

    def score(self, state: Any, pod: PodInfo, node: NodeInfo) -> int: ...


@runtime_checkable
class Reserve(Plugin, Protocol):
    def reserve(self, pod: PodInfo, node: NodeInfo) -> Rejection | None: ...

    def unreserve(self, pod: PodInfo, node_name: str) -> None:
        """The pod goes elsewhere, or nowhere; also called where reserve was not."""
        ...


@runtime_checkable
class Permit(Plugin, Protocol):
    def permit(self, pod: PodInfo, node_name: str) -> Rejection | Wait | None: ...


@runtime_checkable
class PreBind(Plugin, Protocol):
    def needs_pre_bind(self, pod: PodInfo) -> bool:
        """Is there anything to do for this pod? It may take long then."""
        ...

    async def pre_bind(self, pod: PodInfo, node_name: str) -> None:
        """Raises BindFailed and REQUEST_ERRORS."""
        ...


@runtime_checkable
class Bind(Plugin, Protocol):
    async def bind(self, pod: PodInfo, node_name: str) -> bool:
        """False: not this plugin's business, the next one may. Raises as pre_bind."""
        ...


@runtime_checkable
class PostBind(Plugin, Protocol):
    def post_bind(self, pod: PodInfo, node_name: str) -> None: ...


EXTENSION_POINTS: Final[dict[str, type]] = {
    "preEnqueue": PreEnqueue,
    "queueSort": QueueSort,
    "preFilter": PreFilter,
    "filter": Filter,
    "postFilter": PostFilter,
    "preScore": PreScore,
    "score": Score,
    "reserve": Reserve,
    "permit": Permit,
    "preBind": PreBind,
    "bind": Bind,
    "postBind": PostBind,
}
"""By the names that a configuration uses."""


def wakes_of(plugin: Plugin) -> tuple[Wakes, ...] | None:
    """The changes that may change its mind, from its method or attribute `wakes`; None: any."""
    found = getattr(plugin, "wakes", None)
    return found if found is None else tuple(found)


def scale_to_max(scores: list[int], *, reverse: bool = False) -> list[int]:
    """Scale to 0..SCORE_MAX by the largest; `reverse`: the largest raw score becomes the worst."""
    largest = max(scores, default=0)
    if largest <= 0:
        return [SCORE_MAX if reverse else 0] * len(scores)
    scaled = [score * SCORE_MAX // largest for score in scores]
    return [SCORE_MAX - score for score in scaled] if reverse else scaled
