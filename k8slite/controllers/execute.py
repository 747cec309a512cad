"""Carrying out what a plan asks for, in order or in waves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from k8slite.api.meta import Obj
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.client.events import EventRecorder
from k8slite.controllers.actions import Action, Create, Delete, Note, Patch, Update

__all__ = ["Done", "carry_out", "carry_out_together"]

WAVE_MAX = 16
NOT_FOUND = 404
CONFLICT = 409
Done = Callable[[Action, Obj | None], None]
"""Told after each action that was carried out, with the server's answer."""


async def carry_out(
    api: Api, recorder: EventRecorder, actions: Sequence[Action], done: Done | None = None
) -> None:
    """Carry out the actions in order; the first failure ends it. Raises REQUEST_ERRORS."""
    for action in actions:
        answer = await _perform(api, recorder, action)
        if done is not None:
            done(action, answer)


async def carry_out_together(
    api: Api, recorder: EventRecorder, actions: Sequence[Action], done: Done | None = None
) -> None:
    """Carry out independent actions in waves of 1, 2, 4...; the first wave with a failure is the
    last, so that a thousand creations which a quota forbids cost one request.

    Raises the first failure, one of REQUEST_ERRORS.
    """
    start, wave = 0, 1
    while start < len(actions):
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:
            for action in actions[start : start + wave]:
                nursery.start_soon(_perform_one, api, recorder, action, done, failures)
        if failures:
            raise failures[0]
        start += wave
        wave = min(wave * 2, WAVE_MAX)


async def _perform_one(
    api: Api,
    recorder: EventRecorder,
    action: Action,
    done: Done | None,
    failures: list[Exception],
) -> None:
    try:
        answer = await _perform(api, recorder, action)
    except REQUEST_ERRORS as error:
        failures.append(error)
        return
    if done is not None:
        done(action, answer)


async def _perform(api: Api, recorder: EventRecorder, action: Action) -> Obj | None:
    match action:
        case Create():
            return await api.create(action.kind, action.obj)
        case Update():
            return await api.update(action.kind, action.obj, subresource=action.subresource)
        case Patch():
            return await api.patch(
                action.kind,
                action.name,
                action.namespace,
                action.patch,
                subresource=action.subresource,
            )
        case Delete():
            return await _delete(api, action)
        case Note():
            recorder.event(action.obj, action.type, action.reason, action.message)
            return None


async def _delete(api: Api, action: Delete) -> Obj | None:
    try:
        return await api.delete(
            action.kind,
            action.name,
            action.namespace,
            uid=action.uid,
            grace_period_seconds=action.grace_period_seconds,
            propagation=action.propagation,
        )
    except ApiError as error:
        # 404: somebody was faster. 409: the name belongs to a newer object by now.
        if error.code not in (NOT_FOUND, CONFLICT):
            raise
        return None
