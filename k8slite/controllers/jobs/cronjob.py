"""CronJobs: Jobs made when a schedule says so. `plan` is pure.

A Job's name is made of the time it was due, so that no time is served twice, whoever crashes.
What the status says follows from the Jobs there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from k8slite.api import meta
from k8slite.api.kinds import CRON_JOBS, JOBS
from k8slite.api.meta import (
    Obj,
    condition_is,
    copy,
    deleting,
    format_time,
    name,
    namespace,
    owner_reference,
    parse_time,
    resource_version,
    uid,
)
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create, Delete, Note, Update, delete
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.expectations import Expectations
from k8slite.controllers.jobs.cron import MISSED_MANY, CronError, Every, latest_due, parse_schedule
from k8slite.controllers.jobs.job_plan import is_finished
from k8slite.controllers.ownership import controller_key, controller_uid_index

__all__ = ["CronPlan", "job_of", "plan", "run_cronjob_controller"]

DUE = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MARGIN_SECONDS = 0.1
"""Waking up a little late is cheaper than a little early."""


class CronPlan(NamedTuple):
    """What to do in order, and in how many seconds to look again (None: when something changes)."""

    actions: list[Action]
    again: float | None


def plan(cron_job: Obj, jobs: Sequence[Obj], now: float, zone: tzinfo | None) -> CronPlan:
    """`jobs` are those it controls; `zone` is its time zone, None for one that nobody knows."""
    actions = _history(cron_job, jobs)
    status, notes = _status(cron_job, jobs)
    if status != (cron_job.get("status") or {}):
        actions.append(Update(CRON_JOBS, {**cron_job, "status": status}, "status"))
    actions += notes
    spec = cron_job["spec"]
    if deleting(cron_job) or spec.get("suspend"):
        return CronPlan(actions, None)
    if zone is None:
        message = f'invalid timeZone: "{spec.get("timeZone")}"'
        return CronPlan([*actions, Note(cron_job, "Warning", "UnknownTimeZone", message)], None)
    try:
        schedule = parse_schedule(spec["schedule"])
    except CronError as error:
        message = f'unparseable schedule: "{spec["schedule"]}" : {error}'
        return CronPlan([*actions, Note(cron_job, "Warning", "UnparseableSchedule", message)], None)
    last = status.get("lastScheduleTime")
    since = parse_time(last or cron_job["metadata"]["creationTimestamp"])
    deadline = spec.get("startingDeadlineSeconds")
    due, missed = latest_due(schedule, since, now, zone)
    after = since if isinstance(schedule, Every) and due is None else (due or now)
    following = schedule.next_after(after if isinstance(schedule, Every) else now, zone)
    again = None if following is None else max(0.0, following - now) + MARGIN_SECONDS
    if due is None:
        return CronPlan(actions, again)
    if missed > MISSED_MANY:
        message = (
            f"too many missed start times: {missed}. Set or decrease "
            ".spec.startingDeadlineSeconds or check clock skew"
        )
        actions.append(Note(cron_job, "Warning", "TooManyMissedTimes", message))
    if deadline is not None and due + deadline < now:
        message = f"Missed scheduled time to start a job: {format_time(due)}"
        return CronPlan([*actions, Note(cron_job, "Warning", "MissSchedule", message)], again)
    return CronPlan([*actions, *_start(cron_job, jobs, due, zone)], again)


def _start(cron_job: Obj, jobs: Sequence[Obj], due: float, zone: tzinfo) -> list[Action]:
    """Start the Job of that time, as far as those that still run let it."""
    new = job_of(cron_job, due, zone)
    if any(name(job) == name(new) for job in jobs):
        return []
    running = [job for job in jobs if not is_finished(job)]
    policy = cron_job["spec"].get("concurrencyPolicy", "Allow")
    actions: list[Action] = []
    if running and policy == "Forbid":
        message = (
            "Not starting job because prior execution is running and concurrency policy is Forbid"
        )
        return [Note(cron_job, "Normal", "JobAlreadyActive", message)]
    if running and policy == "Replace":
        for job in running:
            message = f"Deleted job {name(job)}"
            actions.append(delete(JOBS, job, propagation="Background"))
            actions.append(Note(cron_job, "Normal", "SuccessfulDelete", message))
    actions.append(Create(JOBS, new))
    message = f"Created job {name(new)}"
    return [*actions, Note(cron_job, "Normal", "SuccessfulCreate", message)]


def job_of(cron_job: Obj, due: float, zone: tzinfo) -> Obj:
    """The Job of one due time."""
    template = cron_job["spec"]["jobTemplate"]
    given = copy(template.get("metadata") or {})
    local = datetime.fromtimestamp(due, zone)
    stamp = local.isoformat() if local.utcoffset() else format_time(due)
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            "name": f"{name(cron_job)}-{int(due) // 60}",
            "namespace": namespace(cron_job),
            "labels": given.get("labels") or {},
            "annotations": {**(given.get("annotations") or {}), DUE: stamp},
            "ownerReferences": [owner_reference(CRON_JOBS, cron_job)],
        },
        "spec": copy(template["spec"]),
    }


def _status(cron_job: Obj, jobs: Sequence[Obj]) -> tuple[Obj, list[Action]]:
    """The status that follows from the Jobs, and what to tell of those that have ended."""
    status = copy(cron_job.get("status") or {})
    known = {reference["uid"]: reference for reference in status.get("active") or ()}
    active: list[Obj] = []
    notes: list[Action] = []
    times = [status["lastScheduleTime"]] if status.get("lastScheduleTime") else []
    successes = [status["lastSuccessfulTime"]] if status.get("lastSuccessfulTime") else []
    for job in sorted(jobs, key=name):
        stamp = meta.annotations(job).get(DUE)
        if stamp:
            times.append(format_time(parse_time(stamp)))
        if not is_finished(job):
            active.append(known.get(uid(job)) or _reference(job))
            continue
        ended = (job.get("status") or {}).get("completionTime")
        succeeded = condition_is(job, "Complete")
        if succeeded and ended:
            successes.append(ended)
        if uid(job) in known:
            how = "Complete" if succeeded else "Failed"
            message = f"Saw completed job: {name(job)}, condition: {how}"
            notes.append(Note(cron_job, "Normal", "SawCompletedJob", message))
    status.pop("active", None)
    if active:
        status["active"] = active
    if times:
        status["lastScheduleTime"] = max(times)
    if successes:
        status["lastSuccessfulTime"] = max(successes)
    return status, notes


def _reference(job: Obj) -> Obj:
    return {
        "kind": JOBS.kind,
        "namespace": namespace(job),
        "name": name(job),
        "uid": uid(job),
        "apiVersion": JOBS.api_version,
        "resourceVersion": resource_version(job),
    }


def _history(cron_job: Obj, jobs: Sequence[Obj]) -> list[Action]:
    """Finished Jobs beyond what is kept, the oldest first."""
    spec = cron_job["spec"]
    ended = [job for job in jobs if is_finished(job) and not deleting(job)]
    actions: list[Action] = []
    for good, limit in (
        (True, spec.get("successfulJobsHistoryLimit", 3)),
        (False, spec.get("failedJobsHistoryLimit", 1)),
    ):
        kind = [job for job in ended if condition_is(job, "Complete") == good]
        kind.sort(key=lambda job: (job["metadata"].get("creationTimestamp", ""), name(job)))
        for job in kind[: max(0, len(kind) - limit)]:
            actions.append(delete(JOBS, job, propagation="Background"))
    return actions


def zone_of(cron_job: Obj) -> tzinfo | None:
    """Its time zone, from the machine's data base; None for a name that is not there."""
    wanted = cron_job["spec"].get("timeZone")
    if not wanted:
        return UTC
    try:
        return ZoneInfo(wanted)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


async def run_cronjob_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("cronjob-controller")
    cron_jobs = context.informer(CRON_JOBS)
    jobs = context.informer(JOBS, controller=controller_uid_index)
    expectations = Expectations()

    def on_job(old: Obj | None, new: Obj | None) -> None:
        for job in (old, new):
            owner = controller_key(job, CRON_JOBS) if job is not None else None
            if owner is not None:
                queue.add(owner)

    async def reconcile(where: str) -> float | None:
        cron_job = cron_jobs.get(where)
        if cron_job is None:
            expectations.forget(where)
            return None

        def done(action: Action, answer: Obj | None) -> None:
            if isinstance(action, Create) and answer is not None:
                expectations.created(where, answer)
                queue.add(where)  # the status follows
            elif isinstance(action, Delete):
                expectations.deleted(where, action.uid)

        seen = jobs.by_index("controller", uid(cron_job))
        mine = expectations.overlay(where, seen, jobs.seen)
        planned = plan(cron_job, mine, context.host.now(), zone_of(cron_job))
        await carry_out(context.api, recorder, planned.actions, done)
        return planned.again

    cron_jobs.add_handler(enqueue_to(queue))
    jobs.add_handler(on_job)
    await cron_jobs.wait_synced()
    await jobs.wait_synced()
    await context.run_workers("cronjob", queue, reconcile)
