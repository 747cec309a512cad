"""Jobs: pods that run to their end, as many as must succeed. The judgement is in `job_plan`."""

from __future__ import annotations

from k8slite.api.kinds import JOBS
from k8slite.api.meta import deleting
from k8slite.controllers.actions import Note, Update
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.jobs.job_plan import is_tracked, plan, release_tracking
from k8slite.controllers.jobs.job_policies import is_ours
from k8slite.controllers.ownership import controller_key
from k8slite.controllers.workloads.pod_fleet import PodFleet

__all__ = ["run_job_controller"]


async def run_job_controller(context: Context) -> None:
    """Run until cancelled."""
    recorder = context.recorder("job-controller")
    fleet = PodFleet(context, JOBS, recorder)

    async def reconcile(where: str) -> float | None:
        job = fleet.owners.get(where)
        if job is None or deleting(job):
            # Nobody counts any more: what still carries our finalizer may go.
            orphans = [p for p in fleet.pods.list() if controller_key(p, JOBS) == where]
            released = [release_tracking(p) for p in orphans if is_tracked(p)]
            await carry_out(context.api, recorder, released)
        if job is None:
            fleet.forget(where)
            return None
        if not is_ours(job):
            return None
        now = context.host.now()
        pods = await fleet.claimed(where, job, finished=True)
        planned = plan(job, pods, now, context.timings.job_backoff)
        if planned.status is not None:
            written = Update(JOBS, {**job, "status": planned.status}, "status")
            notes = [Note(job, *note) for note in planned.notes]
            await carry_out(context.api, recorder, [written, *notes])
        await carry_out(context.api, recorder, planned.released)
        if planned.pods:
            await fleet.change(where, job, planned.pods)
        return planned.again

    await fleet.wait_synced()
    await context.run_workers("job", fleet.queue, reconcile)
