"""Every controller in every storm, and killed after each of its writes: always the same result."""

from __future__ import annotations

import atexit
import random
import shutil
import zlib
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import trio

from k8slite.api.kinds import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
)
from k8slite.api.meta import Obj, get_condition, name
from k8slite.controllers.table import CONTROLLERS
from tests.client.fake_api import FakeApi
from tests.controllers import (
    more_scenarios,
    test_attachments,
    test_claims_of_pods,
    test_housekeeping,
)
from tests.controllers.objects import (
    deployment,
    meta_of,
    namespace_obj,
    node,
    pod,
    replica_set,
    service,
)
from tests.controllers.storms import STORMS, Scenario, pods_of, run_scenario
from tests.controllers.test_cron import cron_job
from tests.controllers.test_daemons import daemon_set
from tests.controllers.test_jobs import job
from tests.controllers.test_small import SUBSET, endpoints
from tests.controllers.test_stateful import stateful_set, with_claims
from tests.controllers.test_volumes import scenario as volumes_scenario


def _counts(obj: Obj) -> dict[str, Any]:
    status = obj.get("status") or {}
    return {k: v for k, v in status.items() if isinstance(v, int) and k != "collisionCount"}


# --- pods and their owners ----------------------------------------------------------------------


def _rollout(api: FakeApi) -> None:
    api.add(DEPLOYMENTS, deployment(replicas=3))


def _new_image(api: FakeApi) -> None:
    def change(obj: Obj) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:2"

    api.change(DEPLOYMENTS, "n/web", change)


def _deployment_outcome(api: FakeApi) -> Any:
    sets = sorted((r["spec"]["replicas"], len(name(r))) for r in api.all(REPLICA_SETS))
    return sets, pods_of(api), _counts(api.read(DEPLOYMENTS, "n/web"))


def _replicas(api: FakeApi) -> None:
    api.add(REPLICA_SETS, replica_set(replicas=4))
    api.add(PODS, pod("orphan", node="", phase="Pending", ready=False))


def _stateful(api: FakeApi) -> None:
    api.add(STATEFUL_SETS, stateful_set(replicas=2))


def _stateful_outcome(api: FakeApi) -> Any:
    return sorted(map(name, api.all(PODS))), _counts(api.read(STATEFUL_SETS, "n/db"))


def _claims_outcome(api: FakeApi) -> Any:
    claims = api.all(PERSISTENT_VOLUME_CLAIMS)
    owned = [(name(c), [r["kind"] for r in c["metadata"]["ownerReferences"]]) for c in claims]
    return sorted(map(name, api.all(PODS))), sorted(owned)


def _surging(api: FakeApi) -> None:
    for own in ("a", "b"):
        api.add(NODES, node(own))
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    api.add(DAEMON_SETS, daemon_set(updateStrategy=rolling))


def _new_daemon(api: FakeApi) -> None:
    def change(obj: Obj) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:2"

    api.change(DAEMON_SETS, "n/agent", change)


def _daemons(api: FakeApi) -> None:
    for own in ("a", "b"):
        api.add(NODES, node(own))
    api.add(DAEMON_SETS, daemon_set())


def _one_job(api: FakeApi) -> None:
    api.add(JOBS, job(completions=3, parallelism=2))


def _job_outcome(api: FakeApi) -> Any:
    done = get_condition(api.read(JOBS, "n/work"), "Complete")
    return done is not None, api.read(JOBS, "n/work")["status"].get("succeeded")


def _cron(api: FakeApi) -> None:
    api.add(CRON_JOBS, cron_job("* * * * *", concurrencyPolicy="Forbid"))


def _cron_outcome(api: FakeApi) -> Any:
    return len(api.all(JOBS)), sorted(api.read(CRON_JOBS, "n/tick")["status"])


def _expiring(api: FakeApi) -> None:
    ended = {"type": "Complete", "status": "True", "lastTransitionTime": api.now()}
    for own, seconds in (("short", 10), ("long", 1000)):
        obj = job(ttlSecondsAfterFinished=seconds)
        obj["metadata"] |= {"name": own, "uid": f"uid-of-{own}"}
        api.add(JOBS, {**obj, "status": {"conditions": [ended]}})


# --- services, namespaces, quotas ---------------------------------------------------------------


def _served(api: FakeApi) -> None:
    api.add(SERVICES, service())
    for i in range(3):
        api.add(PODS, pod(f"p{i}", ip=f"10.0.0.{i}"))


def _slices(api: FakeApi) -> Any:
    return sorted(
        address
        for each in api.all(ENDPOINT_SLICES)
        for endpoint in each.get("endpoints") or ()
        for address in endpoint["addresses"]
    )


def _space(api: FakeApi) -> None:
    api.add(NAMESPACES, namespace_obj("n"))


def _quota(api: FakeApi) -> None:
    hard = {"pods": "5", "requests.cpu": "4", "count/configmaps": "9"}
    api.add(RESOURCE_QUOTAS, {"metadata": meta_of("q"), "spec": {"hard": hard}})
    for i in range(3):
        api.add(PODS, pod(f"p{i}"))
        api.add(CONFIG_MAPS, {"metadata": meta_of(f"c{i}")})


def _controller(api: FakeApi) -> None:
    obj = replica_set("rc", replicas=3)
    obj["spec"]["selector"] = {"app": "web"}
    api.add(REPLICATION_CONTROLLERS, obj)
    api.add(PODS, pod("orphan", node="", phase="Pending", ready=False))


def _mirrored(api: FakeApi) -> None:
    api.add(SERVICES, service(selector=None))
    api.add(ENDPOINTS, endpoints(SUBSET))


SCENARIOS = [
    Scenario(
        name="replicationcontroller",
        controllers=("replicationcontroller-controller",),
        arrange=_controller,
        outcome=lambda api: (pods_of(api), _counts(api.read(REPLICATION_CONTROLLERS, "n/rc"))),
    ),
    Scenario(
        name="mirroring",
        controllers=("endpointslice-mirroring-controller",),
        arrange=_mirrored,
        act=lambda api: api.change(ENDPOINTS, "n/web", lambda o: o.update(subsets=[SUBSET] * 2)),
        outcome=lambda api: sorted(
            (s["addressType"], len(s["endpoints"])) for s in api.all(ENDPOINT_SLICES)
        ),
    ),
    Scenario(
        name="deployment",
        controllers=("deployment-controller", "replicaset-controller"),
        arrange=_rollout,
        act=_new_image,
        outcome=_deployment_outcome,
        pods=True,
        made_twice=(PODS,),
        settle_seconds=120,
    ),
    Scenario(
        name="replicaset",
        controllers=("replicaset-controller",),
        arrange=_replicas,
        outcome=lambda api: (pods_of(api), _counts(api.read(REPLICA_SETS, "n/rs"))),
    ),
    Scenario(
        name="statefulset",
        controllers=("statefulset-controller",),
        arrange=_stateful,
        outcome=_stateful_outcome,
        pods=True,
    ),
    Scenario(
        name="claims",
        controllers=("statefulset-controller",),
        arrange=lambda api: api.add(
            STATEFUL_SETS, with_claims(whenDeleted="Delete", whenScaled="Delete")
        ),
        act=lambda api: api.change(STATEFUL_SETS, "n/db", lambda o: o["spec"].update(replicas=1)),
        outcome=_claims_outcome,
        pods=True,
    ),
    Scenario(
        name="surge",
        controllers=("daemonset-controller",),
        arrange=_surging,
        act=_new_daemon,
        outcome=pods_of,
        pods=True,
        made_twice=(PODS,),
    ),
    Scenario(
        name="daemonset",
        controllers=("daemonset-controller",),
        arrange=_daemons,
        outcome=lambda api: (pods_of(api), len(api.all(CONTROLLER_REVISIONS))),
    ),
    Scenario(
        name="job",
        controllers=("job-controller",),
        arrange=_one_job,
        outcome=_job_outcome,
        pods=True,
        settle_seconds=120,
    ),
    Scenario(
        name="cronjob",
        controllers=("cronjob-controller",),
        arrange=_cron,
        outcome=_cron_outcome,
        settle_seconds=100,
    ),
    Scenario(
        name="ttl",
        controllers=("ttl-after-finished-controller",),
        arrange=_expiring,
        outcome=lambda api: sorted(map(name, api.all(JOBS))),
    ),
    Scenario(
        name="endpointslice",
        controllers=("endpointslice-controller",),
        arrange=_served,
        outcome=_slices,
    ),
    Scenario(
        name="namespace",
        controllers=("serviceaccount-controller", "root-ca-certificate-publisher-controller"),
        arrange=_space,
        outcome=lambda api: (len(api.all(SERVICE_ACCOUNTS)), len(api.all(CONFIG_MAPS))),
    ),
    Scenario(
        name="quota",
        controllers=("resourcequota-controller",),
        arrange=_quota,
        act=lambda api: api.remove(PODS, "n/p0"),
        outcome=lambda api: api.read(RESOURCE_QUOTAS, "n/q")["status"],
    ),
]
DIRECTORY = Path(mkdtemp(prefix="k8slite-test-"))
atexit.register(shutil.rmtree, DIRECTORY, ignore_errors=True)
SCENARIOS += [
    volumes_scenario(DIRECTORY),
    test_claims_of_pods.SCENARIO,
    test_attachments.SCENARIO,
    test_housekeeping.SCENARIO,
    *more_scenarios.SCENARIOS,
]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


ELSEWHERE = "certificatesigningrequest-"
"""Storms of these are in `test_certificates`."""


def test_every_controller_goes_through_storms() -> None:
    tried = {own for scenario in SCENARIOS for own in scenario.controllers}
    assert {own for own in CONTROLLERS if not own.startswith(ELSEWHERE)} == tried


@pytest.mark.parametrize("storm", [s for s in STORMS if s != "calm"])
@pytest.mark.parametrize("scenario", BY_NAME)
async def test_a_storm_changes_nothing(
    scenario: str, storm: str, autojump_clock: trio.testing.MockClock
) -> None:
    expected = await run_scenario(BY_NAME[scenario])
    seed = zlib.crc32(f"{scenario} {storm}".encode())
    result = await run_scenario(BY_NAME[scenario], STORMS[storm], seed=seed)
    assert result.outcome == expected.outcome
    assert result.made == expected.made


@pytest.mark.parametrize("scenario", BY_NAME)
async def test_a_crash_after_any_write_changes_nothing(
    scenario: str, autojump_clock: trio.testing.MockClock
) -> None:
    expected = await run_scenario(BY_NAME[scenario])
    assert expected.writes, "the scenario asks for nothing"
    numbers = range(1, expected.writes + 1)
    if len(numbers) > 12:
        numbers = sorted(random.Random(scenario).sample(numbers, 12))  # type: ignore[assignment]
    for number in numbers:
        result = await run_scenario(BY_NAME[scenario], crash_after=number)
        assert (number, result.outcome) == (number, expected.outcome)
        assert (number, result.made) == (number, expected.made)
