"""Mutating webhooks, one after the other and perhaps again; validating ones, all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

import orjson
import trio

from k8slite.api.codec import IGNORE, from_parsed
from k8slite.api.kinds import KIND, Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.patch import json_patch
from k8slite.api.status import ApiError
from k8slite.apiserver.admission.dynamic.attributes import Attributes
from k8slite.apiserver.admission.dynamic.calls import ask, kind_to_ask
from k8slite.apiserver.conversion import from_stored, to_stored
from k8slite.apiserver.registry.strategies import strategy_of

__all__ = ["mutating_webhooks", "validating_webhooks"]

MUTATING = KIND["mutatingwebhookconfigurations.admissionregistration.k8s.io"]
VALIDATING = KIND["validatingwebhookconfigurations.admissionregistration.k8s.io"]
PARALLEL_MAX = 16

Again = Callable[[], Awaitable[None]]
"""Runs the plugins before the webhooks once more, on what these have made of the object."""


class _Hook(NamedTuple):
    configuration: str
    hook: Obj


def _hooks(attributes: Attributes, kind: Kind) -> Iterator[_Hook]:
    """All of a kind of configuration, in the order in which they are asked."""
    for entry in attributes.call.core.mirror.cache(kind).entries.values():
        for hook in entry.parsed().get("webhooks") or ():
            yield _Hook(entry.name, hook)


async def mutating_webhooks(attributes: Attributes, again: Again) -> None:
    """Change `attributes.new` in place as webhooks say. Raises ApiError.

    Who asked for it (reinvocationPolicy IfNeeded) is asked once more if the object was changed by
    others after he had seen it.
    """
    if not attributes.call.core.mirror.cache(MUTATING).entries:
        return
    hooks = list(_hooks(attributes, MUTATING))
    seen: list[_Hook] = []
    stale: list[_Hook] = []
    changed = False
    for hook in hooks:
        kind = kind_to_ask(attributes, hook.hook)
        if kind is None:
            continue
        if await _mutate(attributes, hook.hook, kind):
            changed = True
            stale = [h for h in seen if h.hook.get("reinvocationPolicy") == "IfNeeded"]
        seen.append(hook)
    if not changed:
        return
    before = copy(attributes.new)
    await again()
    if attributes.new != before:
        stale = [h for h in seen if h.hook.get("reinvocationPolicy") == "IfNeeded"]
    for hook in stale:
        kind = kind_to_ask(attributes, hook.hook)
        if kind is not None:
            await _mutate(attributes, hook.hook, kind)


async def _mutate(attributes: Attributes, hook: Obj, kind: Kind) -> bool:
    """Ask one; has it changed the object?"""
    verdict = await ask(attributes, hook, kind)
    if not verdict.patch or attributes.new is None:
        return False
    shown = attributes.shown_as(kind, attributes.new)
    assert shown is not None
    before = copy(attributes.new)
    try:
        patched = json_patch(copy(shown), verdict.patch)
        decoded = from_parsed(patched, kind, IGNORE, body=orjson.dumps(patched)).obj
    except ApiError as error:
        message = f'Internal error occurred: webhook "{hook["name"]}": {error.message}'
        raise ApiError(500, "InternalError", message, {}) from None
    call = attributes.call
    if kind is not call.kind:
        decoded = from_stored(call.kind, to_stored(kind, decoded))
    strategy = strategy_of(call.kind)
    strategy.decoded(call, decoded, IGNORE)
    strategy.defaults(call, decoded)
    attributes.new.clear()
    attributes.new.update(decoded)
    return before != attributes.new


async def validating_webhooks(attributes: Attributes) -> None:
    """Raises ApiError: the first refusal in the order of the configurations."""
    if not attributes.call.core.mirror.cache(VALIDATING).entries:
        return
    wanted = [
        (hook.hook, kind)
        for hook in _hooks(attributes, VALIDATING)
        if (kind := kind_to_ask(attributes, hook.hook)) is not None
    ]
    refusals: list[ApiError | None] = [None] * len(wanted)
    limit = trio.CapacityLimiter(PARALLEL_MAX)

    async def one(i: int, hook: Obj, kind: Kind) -> None:
        async with limit:
            try:
                await ask(attributes, hook, kind)
            except ApiError as error:
                refusals[i] = error

    async with trio.open_nursery() as nursery:
        for i, (hook, kind) in enumerate(wanted):
            nursery.start_soon(one, i, hook, kind)
    for refusal in refusals:
        if refusal is not None:
            raise refusal
