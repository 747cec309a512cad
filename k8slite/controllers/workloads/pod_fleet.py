"""The pods of one kind of owner: seeing them, claiming them, creating and deleting them.

What every controller of pods needs around its plan. No pod is made twice for want of a fresh
cache: what was created is remembered until the cache shows it (`expectations`), and after a
creation whose outcome is unknown the pods are listed anew from the apiserver.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api.kinds import PODS, REPLICATION_CONTROLLERS, Kind
from k8slite.api.meta import Obj, deleting, key, labels, name, namespace, uid
from k8slite.api.selectors import LabelSelector, from_map, from_object
from k8slite.api.status import ApiError
from k8slite.client.errors import ClientError
from k8slite.client.events import EventRecorder
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create, Delete
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out, carry_out_together
from k8slite.controllers.expectations import Expectations
from k8slite.controllers.ownership import (
    adoption,
    claim,
    controller_key,
    controller_uid_index,
    release,
)
from k8slite.controllers.workloads.pods import is_terminal

__all__ = ["PodFleet", "selector_of"]


def selector_of(kind: Kind, owner: Obj) -> LabelSelector:
    """Which pods the owner claims; a ReplicationController's selector is a plain map."""
    selector = owner["spec"].get("selector")
    return from_map(selector) if kind is REPLICATION_CONTROLLERS else from_object(selector)


class PodFleet:
    """Informers of the owners and of pods, and a queue with the keys of owners to look at."""

    def __init__(
        self,
        context: Context,
        owner_kind: Kind,
        recorder: EventRecorder,
        created: str = "Created pod: {pod}",
        deleted: str = "Deleted pod: {pod}",
    ) -> None:
        """`created` and `deleted` are the messages of events, with {pod} and {owner}."""
        self._created, self._deleted = created, deleted
        self.queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
        self.owners = context.informer(owner_kind, controller=controller_uid_index)
        self.pods = context.informer(PODS, controller=controller_uid_index)
        self._api = context.api
        self._kind = owner_kind
        self._recorder = recorder
        self._expectations = Expectations()
        self._doubtful: dict[str, None] = {}
        self.owners.add_handler(enqueue_to(self.queue))
        self.pods.add_handler(self._on_pod)

    async def wait_synced(self) -> None:
        await self.owners.wait_synced()
        await self.pods.wait_synced()

    def forget(self, where: str) -> None:
        """The owner with this key is gone."""
        self._expectations.forget(where)
        self._doubtful.pop(where, None)

    async def claimed(self, where: str, owner: Obj, *, finished: bool = False) -> list[Obj]:
        """The owner's pods, after adopting orphans that match and letting go those that do not.

        Finished pods are left out unless asked for.
        """
        selector = selector_of(self._kind, owner)
        observed = await self._observe(where, owner)
        claims = claim(owner, selector, [p for p in observed if finished or not is_terminal(p)])
        if claims.adopt:
            await self._check_alive(owner)
        actions = [
            *(adoption(PODS, self._kind, owner, pod) for pod in claims.adopt),
            *(release(PODS, owner, pod) for pod in claims.release),
        ]
        if actions:
            await carry_out(self._api, self._recorder, actions)
        return [*claims.owned, *claims.adopt]

    def refreshed(self, where: str, pods: Sequence[Obj]) -> list[Obj]:
        """The pods with what `change` has done to them."""
        return self._expectations.applied(where, pods)

    async def change(self, where: str, owner: Obj, actions: Sequence[Action]) -> None:
        """Create or delete pods (all the same of the two), and tell so.

        Raises ApiError or ClientError; what was done before the failure is remembered.
        """

        def done(action: Action, answer: Obj | None) -> None:
            if isinstance(action, Create):
                assert answer is not None
                self._expectations.created(where, answer)
                message = self._created.format(pod=name(answer), owner=name(owner))
                told = "SuccessfulCreate", message
            else:
                assert isinstance(action, Delete)
                self._expectations.deleted(where, action.uid)
                message = self._deleted.format(pod=action.name, owner=name(owner))
                told = "SuccessfulDelete", message
            self._recorder.event(owner, "Normal", *told)

        try:
            await carry_out_together(self._api, self._recorder, actions, done)
        except (ApiError, ClientError) as error:
            if isinstance(error, ClientError):
                self._doubtful[where] = None
            creating = isinstance(actions[0], Create)
            reason, verb = (
                ("FailedCreate", "creating") if creating else ("FailedDelete", "deleting")
            )
            self._recorder.event(owner, "Warning", reason, f"Error {verb}: {error}")
            raise

    async def _observe(self, where: str, owner: Obj) -> list[Obj]:
        if where in self._doubtful:
            live = await self._api.list(PODS, namespace(owner))
            del self._doubtful[where]
            return self._expectations.overlay(where, live.items, lambda _: True)
        cached = [
            *self.pods.by_index("controller", uid(owner)),
            *self.pods.by_index("controller", f"orphan/{namespace(owner)}"),
        ]
        return self._expectations.overlay(where, cached, self.pods.seen)

    async def _check_alive(self, owner: Obj) -> None:
        """Ask the apiserver, not the cache: an owner that is gone must adopt nothing."""
        live = await self._api.get(self._kind, name(owner), namespace(owner))
        if uid(live) != uid(owner) or deleting(live):
            message = f"{name(owner)} is being deleted: it adopts no pods"
            raise ApiError(409, "Conflict", message)

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            owner = controller_key(pod, self._kind)
            if owner is not None:
                self.queue.add(owner)
            elif pod is new and not pod["metadata"].get("ownerReferences"):
                self._enqueue_candidates(pod)

    def _enqueue_candidates(self, orphan: Obj) -> None:
        for owner in self.owners.list():
            selector = selector_of(self._kind, owner)
            if namespace(owner) == namespace(orphan) and selector.matches(labels(orphan)):
                self.queue.add(key(owner))
