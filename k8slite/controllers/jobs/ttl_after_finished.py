"""Finished Jobs that say for how long they stay (`ttlSecondsAfterFinished`) go after that."""

from __future__ import annotations

from k8slite.api.kinds import JOBS
from k8slite.api.meta import Obj, deleting, get_condition, name, namespace, parse_time, uid
from k8slite.api.status import ApiError
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import delete
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out

__all__ = ["expires_in", "run_ttl_after_finished_controller"]

NOT_FOUND = 404


def expires_in(job: Obj, now: float) -> float | None:
    """Seconds until a finished Job is to be deleted; None if it stays (pure)."""
    seconds = job["spec"].get("ttlSecondsAfterFinished")
    if seconds is None or deleting(job):
        return None
    for kind in ("Complete", "Failed"):
        condition = get_condition(job, kind)
        if condition is not None and condition["status"] == "True":
            return max(0.0, parse_time(condition["lastTransitionTime"]) + float(seconds) - now)
    return None


async def run_ttl_after_finished_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("ttl-after-finished-controller")
    jobs = context.informer(JOBS)

    async def reconcile(where: str) -> float | None:
        job = jobs.get(where)
        left = None if job is None else expires_in(job, context.host.now())
        if job is None or left is None or left > 0:
            return left
        # The time may have been made longer meanwhile: ask, before it is too late.
        live = await _live(context, job)
        if live is None or uid(live) != uid(job):
            return None
        left = expires_in(live, context.host.now())
        if left == 0.0:
            await carry_out(context.api, recorder, [delete(JOBS, live, propagation="Background")])
            return None
        return left

    jobs.add_handler(enqueue_to(queue))
    await jobs.wait_synced()
    await context.run_workers("ttl-after-finished", queue, reconcile)


async def _live(context: Context, job: Obj) -> Obj | None:
    try:
        return await context.api.get(JOBS, name(job), namespace(job))
    except ApiError as error:
        if error.code != NOT_FOUND:
            raise
        return None
