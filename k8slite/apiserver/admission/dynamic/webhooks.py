"""Mutating webhooks, one after the other and perhaps again; validating ones, all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import orjson
import trio

from k8slite.api.kinds import KIND, Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.patch import json_patch
from k8slite.api.status import ApiError
from k8slite.apiserver.admission.dynamic.attributes import Attributes
from k8slite.apiserver.admission.dynamic.calls import Verdict, ask, kind_to_ask
from k8slite.apiserver.admission.dynamic.reinvocation import Pass

__all__ = ["mutating_webhooks", "validating_webhooks"]

MUTATING = KIND["mutatingwebhookconfigurations.admissionregistration.k8s.io"]
VALIDATING = KIND["validatingwebhookconfigurations.admissionregistration.k8s.io"]
PARALLEL_MAX = 16


class _Hook(NamedTuple):
    configuration: str
    hook: Obj


def _hooks(attributes: Attributes, kind: Kind) -> Iterator[_Hook]:
    """All of a kind of configuration, in the order in which they are asked."""
    for entry in attributes.call.core.mirror.cache(kind).entries.values():
        for hook in entry.parsed().get("webhooks") or ():
            yield _Hook(entry.name, hook)


async def mutating_webhooks(attributes: Attributes, pass_: Pass) -> None:
    """Change `attributes.new` in place as webhooks say. Raises ApiError."""
    if not attributes.call.core.mirror.cache(MUTATING).entries:
        return
    pass_.begin(attributes.new)
    for number, hook in enumerate(_hooks(attributes, MUTATING)):
        if not pass_.wants(number):
            continue
        kind = await kind_to_ask(attributes, hook.hook)
        if kind is None:
            continue
        verdict = await ask(attributes, hook.hook, kind)
        mutated = await _mutate(attributes, hook.hook, kind, verdict)
        if mutated:
            pass_.changed()
        place = f"round_{pass_.round}_index_{number}"
        note = {"configuration": hook.configuration, "webhook": hook.hook["name"]}
        text = orjson.dumps({**note, "mutated": mutated}).decode()
        attributes.call.annotate(f"mutation.webhook.admission.k8s.io/{place}", text)
        if verdict.failed_open:
            key = f"failed-open.mutation.webhook.admission.k8s.io/{place}"
            attributes.call.annotate(key, hook.hook["name"])
        if hook.hook.get("reinvocationPolicy") == "IfNeeded":
            pass_.may_be_asked_again(number)
    pass_.end(attributes.new)


async def _mutate(attributes: Attributes, hook: Obj, kind: Kind, verdict: Verdict) -> bool:
    """Carry out what one wants; has it changed the object?"""
    if not verdict.patch or attributes.new is None:
        return False
    shown = await attributes.shown_as(kind, attributes.new)
    assert shown is not None
    try:
        return await attributes.take(kind, json_patch(copy(shown), verdict.patch))
    except ApiError as error:
        message = f'Internal error occurred: webhook "{hook["name"]}": {error.message}'
        raise ApiError(500, "InternalError", message, {}) from None


async def validating_webhooks(attributes: Attributes) -> None:
    """Raises ApiError: the first refusal in the order of the configurations."""
    if not attributes.call.core.mirror.cache(VALIDATING).entries:
        return
    wanted = [
        (hook.hook, kind)
        for hook in _hooks(attributes, VALIDATING)
        if (kind := await kind_to_ask(attributes, hook.hook)) is not None
    ]
    refusals: list[ApiError | None] = [None] * len(wanted)
    limit = trio.CapacityLimiter(PARALLEL_MAX)

    async def one(i: int, hook: Obj, kind: Kind) -> None:
        async with limit:
            try:
                verdict = await ask(attributes, hook, kind)
                if verdict.failed_open:
                    key = f"failed-open.validating.webhook.admission.k8s.io/round_0_index_{i}"
                    attributes.call.annotate(key, hook["name"])
            except ApiError as error:
                refusals[i] = error

    async with trio.open_nursery() as nursery:
        for i, (hook, kind) in enumerate(wanted):
            nursery.start_soon(one, i, hook, kind)
    for refusal in refusals:
        if refusal is not None:
            raise refusal
