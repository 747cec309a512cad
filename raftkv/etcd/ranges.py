"""What a range request of etcd can ask for beyond the store's own: filters and orders. Pure.

The store gives the pairs of a range in order of key. Revision filters and the other orders look at
all of them before the limit cuts, so such a request reads the whole range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

__all__ = ["arranged", "needs_all"]

Pair = Sequence[Any]
"""key, value, create revision, mod revision, version, lease"""

DESCEND: Final = 2
BY_KEY: Final = 0
TARGETS: Final[dict[int, Callable[[Pair], Any]]] = {
    BY_KEY: lambda pair: pair[0],
    1: lambda pair: pair[4],  # VERSION
    2: lambda pair: pair[2],  # CREATE
    3: lambda pair: pair[3],  # MOD
    4: lambda pair: pair[1],  # VALUE
}


def needs_all(request: Any) -> bool:
    """Whether the limit must not cut before the pairs were filtered and sorted."""
    return bool(
        request.sort_order
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def arranged(request: Any, pairs: Sequence[Pair]) -> tuple[Sequence[Pair], bool]:
    """The pairs that a request asks for, of those in its range, and whether its limit cut.

    An order by anything but the key is ascending where the request names none; equals stay in the
    order of their keys.
    """
    if needs_all(request):
        pairs = [pair for pair in pairs if _wanted(request, pair)]
    if request.sort_target != BY_KEY or request.sort_order == DESCEND:
        target = TARGETS.get(request.sort_target, TARGETS[BY_KEY])
        pairs = sorted(pairs, key=target, reverse=request.sort_order == DESCEND)
    if 0 < request.limit < len(pairs):
        return pairs[: request.limit], True
    return pairs, False


def _wanted(request: Any, pair: Pair) -> bool:
    _, _, created, modified, _, _ = pair
    return (
        request.min_mod_revision <= modified
        and request.min_create_revision <= created
        and (not request.max_mod_revision or modified <= request.max_mod_revision)
        and (not request.max_create_revision or created <= request.max_create_revision)
    )
