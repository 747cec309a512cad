"""Several replicas of the manager and of the scheduler: one works at a time, and work goes on."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio

from k8slite.api.kinds import DEPLOYMENTS, LEASES, NODES, PODS
from k8slite.api.meta import Obj
from k8slite.client.client import ClientConfig
from k8slite.client.leader import LeaderState
from k8slite.controllers.manager import ControllerManagerConfig, run_replica
from k8slite.controllers.table import CONTROLLERS, selected
from k8slite.scheduler.scheduler import Scheduler, SchedulerConfig
from k8slite.scheduler.scheduler import run_replica as run_scheduler_replica
from raftkv.host import Address
from tests.client.fake_api import FakeApi
from tests.client.test_leader import Link
from tests.client.world import MemoryHost
from tests.controllers.objects import deployment
from tests.controllers.world import Cluster
from tests.scheduler.objects import node

DEFAULTS = sum(entry.default for entry in CONTROLLERS.values())
CLIENT = ClientConfig(endpoints=(Address("unused", 1),))


class Replica:
    """One replica behind a link that can be cut, and that can be killed."""

    def __init__(self, api: FakeApi, seed: int) -> None:
        self.link = Link(api)
        self.host = MemoryHost(seed)
        self.scope = trio.CancelScope()

    async def main(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            with trio.CancelScope() as self.scope:
                await run()


def image(version: int) -> Callable[[Obj], None]:
    def change(obj: Obj) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = f"nginx:{version}"

    return change


@pytest.mark.parametrize("seed", range(4))
async def test_rollouts_go_on_whoever_is_killed_or_cut_off(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(seed)
    cluster = Cluster(seed)
    api = cluster.api
    managers = [Replica(api, seed * 10 + i) for i in range(3)]
    states = [LeaderState() for _ in managers]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run_pods)
        for i, (replica, state) in enumerate(zip(managers, states, strict=True)):
            config = ControllerManagerConfig(client=CLIENT, identity=f"cm-{i}")

            async def run(
                replica: Replica = replica,
                config: ControllerManagerConfig = config,
                state: LeaderState = state,
            ) -> None:
                await run_replica(
                    replica.link,  # type: ignore[arg-type]  # a proxy of the fake
                    config,
                    replica.host,
                    state,
                )

            nursery.start_soon(replica.main, run)
        await trio.sleep(5)
        api.add(DEPLOYMENTS, deployment(replicas=4))
        for version in range(2, 7):
            api.change(DEPLOYMENTS, "n/web", image(version))
            for _ in range(3):
                victim = rng.choice(managers)
                if rng.random() < 0.5:
                    victim.scope.cancel()
                else:
                    victim.link.cut = not victim.link.cut
                await trio.sleep(rng.random() * 15)
                assert sum(s.leading for s in states) <= 1
        for replica in managers:
            replica.link.cut = False
        await trio.sleep(120)
        images = [p["spec"]["containers"][0]["image"] for p in cluster.pods()]
        assert images == ["nginx:6"] * 4
        assert sum(s.leading for s in states) == 1
        nursery.cancel_scope.cancel()
    holder = api.read(LEASES, "kube-system/kube-controller-manager")["spec"]["holderIdentity"]
    assert holder == "", "the last leader has given up its Lease"


async def test_a_scheduler_takes_over_what_another_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api = FakeApi()
    api.add(NODES, node("a", "64"))
    replicas = [Replica(api, i) for i in range(2)]
    async with trio.open_nursery() as nursery:
        for i, replica in enumerate(replicas):
            config = SchedulerConfig(client=CLIENT, identity=f"s-{i}")

            async def run(replica: Replica = replica, config: SchedulerConfig = config) -> None:
                await run_scheduler_replica(
                    replica.link,  # type: ignore[arg-type]  # a proxy of the fake
                    config,
                    replica.host,
                    Scheduler(),
                )

            nursery.start_soon(replica.main, run)
        for i in range(30):
            spec = {"containers": [{"name": "c"}], "schedulerName": "default-scheduler"}
            api.add(PODS, {"metadata": {"name": f"p{i}", "namespace": "n"}, "spec": spec})
            if i % 10 == 5:
                replicas[i // 10 % 2].link.cut = True
            if i % 10 == 9:
                for replica in replicas:
                    replica.link.cut = False
            await trio.sleep(5)
        await trio.sleep(60)
        assert all(p["spec"].get("nodeName") == "a" for p in api.all(PODS))
        nursery.cancel_scope.cancel()


def test_an_unknown_controller_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"no controller is called nonsense; there are .*node"):
        ControllerManagerConfig(client=CLIENT, identity="x", controllers=("nonsense",))
    assert len(CONTROLLERS) >= 11


@pytest.mark.parametrize(
    ("words", "missing", "count"),
    [
        ((), "token-cleaner-controller", DEFAULTS),
        (("*",), "", DEFAULTS),
        (("*", "-job-controller"), "job-controller", DEFAULTS - 1),
        (("*", "token-cleaner-controller"), "", DEFAULTS + 1),
        (("job-controller",), "deployment-controller", 1),
        (("-job-controller",), "job-controller", 0),
    ],
)
def test_a_selection_of_controllers(words: tuple[str, ...], missing: str, count: int) -> None:
    names = selected(words)
    assert missing not in names
    assert len(names) == count
