"""Schedules, and the Jobs that they make."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api.kinds import CRON_JOBS, EVENTS, JOBS
from k8slite.api.meta import Obj, format_time, name, owner_reference, parse_time
from k8slite.controllers.actions import Create, Delete, Note, Update
from k8slite.controllers.jobs.cron import Cron, CronError, Every, latest_due, parse_schedule
from k8slite.controllers.jobs.cronjob import DUE, plan
from tests.controllers.objects import meta_of
from tests.controllers.world import open_cluster

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return parse_time(text + ":00Z")


@pytest.mark.parametrize(
    ("schedule", "now", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00", "2026-01-01T00:01"),
        ("*/15 * * * *", "2026-01-01T00:46", "2026-01-01T01:00"),
        ("5,35 9-17/4 * * *", "2026-01-01T09:35", "2026-01-01T13:05"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("0 0 31 * *", "2026-01-31T00:00", "2026-03-31T00:00"),
        ("30 4 * * mon-fri", "2026-01-02T05:00", "2026-01-05T04:30"),
        ("0 0 13 * fri", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("0 0 */2 * 0", "2026-01-01T00:00", "2026-01-11T00:00"),
        ("0 12 1 jan,Jul ?", "2026-01-02T00:00", "2026-07-01T12:00"),
        ("@weekly", "2026-01-01T00:00", "2026-01-04T00:00"),
        ("@every 1h30m", "2026-01-01T00:00", "2026-01-01T01:30"),
    ],
)
def test_the_next_time(schedule: str, now: str, expected: str) -> None:
    due = parse_schedule(schedule).next_after(at(now), UTC)
    assert due is not None
    assert format_time(due) == expected + ":00Z"


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "*/0 * * * *", "a * * * *", "@often"]
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(CronError):
        parse_schedule(text)


def test_a_time_never_comes() -> None:
    assert parse_schedule("0 0 30 2 *").next_after(at("2026-01-01T00:00"), UTC) is None


def test_clocks_that_change() -> None:
    daily = parse_schedule("30 2 * * *")
    skipped = daily.next_after(at("2026-03-28T12:00"), BERLIN)  # 02:30 is not on the 29th
    assert skipped == at("2026-03-30T00:30")
    first = daily.next_after(at("2026-10-24T12:00"), BERLIN)
    assert first == at("2026-10-25T00:30")
    assert daily.next_after(first, BERLIN) == at("2026-10-25T01:30")


FIELDS = st.tuples(
    st.sampled_from(["*", "0", "*/7", "10-20", "3,59"]),
    st.sampled_from(["*", "0", "*/5", "22-23"]),
    st.sampled_from(["*", "1", "28-31", "*/10"]),
    st.sampled_from(["*", "2", "*/3"]),
    st.sampled_from(["*", "0", "1-5"]),
)
ZONES = st.sampled_from([UTC, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")])


@given(FIELDS, st.integers(1_760_000_000, 1_800_000_000), ZONES)
def test_next_after_equals_its_twin(fields: tuple[str, ...], now: int, zone: tzinfo) -> None:
    """The twin looks at every minute of three days."""
    schedule = parse_schedule(" ".join(fields))
    assert isinstance(schedule, Cron)
    due = schedule.next_after(now, zone)
    start = (now // 60 + 1) * 60
    for minute in range(start, start + 3 * 86400, 60):
        local = datetime.fromtimestamp(minute, zone)
        by_day, by_weekday = local.day in schedule.days, local.isoweekday() % 7 in schedule.weekdays
        loose = not schedule.any_day and not schedule.any_weekday
        if (
            local.minute in schedule.minutes
            and local.hour in schedule.hours
            and local.month in schedule.months
            and ((by_day or by_weekday) if loose else (by_day and by_weekday))
        ):
            assert due == minute
            return
    assert due is None or due >= start + 3 * 86400


@given(FIELDS, st.integers(1_760_000_000, 1_800_000_000), st.integers(0, 40_000))
def test_the_latest_due_time_is_the_last_of_all(
    fields: tuple[str, ...], since: int, seconds: int
) -> None:
    schedule = parse_schedule(" ".join(fields))
    now, expected, time = since + seconds, None, float(since)
    while (following := schedule.next_after(time, UTC)) is not None and following <= now:
        expected = time = following
    assert latest_due(schedule, since, now)[0] == expected


def test_every_so_often_is_counted_from_the_last_time() -> None:
    assert latest_due(Every(60), 1000, 1250) == (1240, 4)


# --- plans --------------------------------------------------------------------------------------


def cron_job(schedule: str = "*/5 * * * *", **spec: Any) -> Obj:
    pod = {"containers": [{"name": "c", "image": "succeeds"}], "restartPolicy": "Never"}
    template = {"metadata": {"labels": {"app": "tick"}}, "spec": {"template": {"spec": pod}}}
    return {
        "metadata": meta_of("tick", generation=1),
        "spec": {"schedule": schedule, "jobTemplate": template, **spec},
    }


def made(minutes: int, end: str = "", base: float = 1_700_000_000) -> Obj:
    """A Job made so many minutes after the CronJob."""
    due = base - base % 60 + minutes * 60
    metadata = meta_of(f"tick-{int(due) // 60}", annotations={DUE: format_time(due)})
    metadata["ownerReferences"] = [owner_reference(CRON_JOBS, cron_job())]
    metadata["creationTimestamp"] = format_time(due)
    status: Obj = {}
    if end:
        status = {
            "conditions": [{"type": end, "status": "True"}],
            "completionTime": format_time(due),
        }
    return {"metadata": metadata, "spec": {}, "status": status}


NOW = 1_700_000_000.0


def kinds(actions: list[Any]) -> list[str]:
    names = []
    for action in actions:
        match action:
            case Create():
                names.append("create")
            case Delete():
                names.append(f"delete {action.name.rpartition('-')[2]}")
            case Note():
                names.append(action.reason)
            case Update():
                names.append("status")
    return names


@pytest.mark.parametrize(
    ("spec", "jobs", "later", "expected"),
    [
        ({}, [], 60.0, []),
        ({}, [], 320.0, ["create", "SuccessfulCreate"]),
        ({"suspend": True}, [], 320.0, []),
        ({"startingDeadlineSeconds": 5}, [], 320.0, ["MissSchedule"]),
        ({"startingDeadlineSeconds": 250}, [], 320.0, ["create", "SuccessfulCreate"]),
        ({"timeZone": "No/Where"}, [], 320.0, ["UnknownTimeZone"]),
        ({"schedule": "often"}, [], 320.0, ["UnparseableSchedule"]),
        (
            {"schedule": "* * * * *"},
            [],
            9000.0,
            ["TooManyMissedTimes", "create", "SuccessfulCreate"],
        ),
        ({"concurrencyPolicy": "Forbid"}, [made(1)], 320.0, ["status", "JobAlreadyActive"]),
        (
            {"concurrencyPolicy": "Replace"},
            [made(1)],
            320.0,
            ["status", "delete 28333334", "SuccessfulDelete", "create", "SuccessfulCreate"],
        ),
        (
            {"successfulJobsHistoryLimit": 1},
            [made(-9, "Complete"), made(-8, "Complete"), made(-7, "Failed")],
            0.0,
            ["delete 28333324", "status", "create", "SuccessfulCreate"],
        ),
    ],
)
def test_a_plan(spec: Obj, jobs: list[Obj], later: float, expected: list[str]) -> None:
    zone = None if "timeZone" in spec else UTC
    planned = plan(cron_job(**spec), jobs, NOW + later, zone)
    assert kinds(planned.actions) == expected


def test_a_time_that_was_served_is_not_served_again() -> None:
    [_, created, _] = plan(cron_job("@hourly"), [made(1)], NOW + 4000, UTC).actions
    assert isinstance(created, Create)
    again = plan(cron_job("@hourly"), [created.obj], NOW + 4001, UTC)
    assert kinds(again.actions) == ["status"]


async def test_jobs_come_and_old_ones_go(autojump_clock: trio.testing.MockClock) -> None:
    controllers = ("cronjob-controller", "job-controller", "ttl-after-finished-controller")
    async with open_cluster(*controllers) as cluster:
        api = cluster.api
        obj = cron_job("* * * * *")
        obj["spec"]["jobTemplate"]["spec"] |= {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 6,
            "selector": {"matchLabels": {"app": "tick"}},
        }
        obj["spec"]["jobTemplate"]["spec"]["template"]["metadata"] = {"labels": {"app": "tick"}}
        api.add(CRON_JOBS, obj)
        await trio.sleep(600)
        created = [key for verb, plural, key in api.log if (verb, plural) == ("create", "jobs")]
        assert len(created) == len(set(created)) == 10
        assert len(api.all(JOBS)) == 3
        status = api.read(CRON_JOBS, "n/tick")["status"]
        assert status["lastSuccessfulTime"] > status["lastScheduleTime"]
        assert "active" not in status
        reasons = [e["reason"] for e in api.all(EVENTS) if e["involvedObject"]["kind"] == "CronJob"]
        assert {"SuccessfulCreate", "SawCompletedJob"} <= set(reasons)
        assert all(name(job).startswith("tick-") for job in api.all(JOBS))
