"""The `default` ServiceAccount of every namespace, without which no pod is admitted there."""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api.kinds import NAMESPACES, SERVICE_ACCOUNTS
from k8slite.api.meta import Obj, deleting, name, namespace
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out

__all__ = ["plan", "run_serviceaccount_controller"]

NAMES = ("default",)


def is_live(space: Obj) -> bool:
    phase = (space.get("status") or {}).get("phase", "Active")
    return not deleting(space) and phase == "Active"


def plan(space: Obj | None, existing: Sequence[str]) -> list[Action]:
    """The accounts that a namespace lacks (pure)."""
    if space is None or not is_live(space):
        return []
    return [
        Create(
            SERVICE_ACCOUNTS,
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": account, "namespace": name(space)},
            },
        )
        for account in NAMES
        if account not in existing
    ]


async def run_serviceaccount_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("serviceaccount-controller")
    spaces = context.informer(NAMESPACES)
    accounts = context.informer(SERVICE_ACCOUNTS)

    def on_account(old: Obj | None, new: Obj | None) -> None:
        if new is None and old is not None and name(old) in NAMES:
            queue.add(namespace(old))

    async def reconcile(key: str) -> None:
        existing = [account for account in NAMES if accounts.get(f"{key}/{account}")]
        await carry_out(context.api, recorder, plan(spaces.get(key), existing))

    spaces.add_handler(enqueue_to(queue))
    accounts.add_handler(on_account)
    await accounts.wait_synced()
    await context.run_workers("serviceaccount", queue, reconcile)
