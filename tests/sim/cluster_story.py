"""One seed's story on a whole Kubernetes cluster: users at work while hosts and wires fail.

Safety: what was acknowledged is there, what was refused is not, and a reflector that saw only
events holds what a list tells. Liveness: when a majority of the store and one of each component
are well again, everything converges.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from k8slite.api.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SERVICES,
)
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError
from k8slite.client.client import Client
from k8slite.client.errors import REQUEST_ERRORS, UnknownOutcome, Unreachable
from k8slite.client.informer import Informer, open_informer
from k8slite.testing import ClusterConfig, SimCluster, run_cluster
from netsim.seeds import stream
from netsim.swarm import Fault, carry_out, core_only, draw_plan
from netsim.world import Outcome
from tests.testing.scenarios import running_pods, web

__all__ = ["Told", "plan_of", "play"]

FAULTS_SECONDS = 40.0
LONG_FAULTS_SECONDS = 800.0
"""Of every eighth seed: long enough for nodes to be given up and to come back."""
LONG = 8
LIVENESS_SECONDS = 900.0
"""Virtual. Long, because pods of a dead node are given up after more than five minutes."""
USERS = 3
REPLICAS = 3
CONFIG = ClusterConfig(nodes=3)
GONE = "gone"
SERVICE: Obj = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
}
IMAGES = ("web:1", "web:2", "web:3")
OVERLAP_SECONDS_MAX = 5.0


def _hosts() -> list[str]:
    counts = {
        "raft": CONFIG.raft_members,
        "apiserver": CONFIG.apiservers,
        "controller-manager": CONFIG.controller_managers,
        "scheduler": CONFIG.schedulers,
        "node": CONFIG.nodes,
    }
    return [f"{role}-{number + 1}" for role, count in counts.items() for number in range(count)]


def _pace(seed: int) -> float:
    """How much slower than usual everything goes in this seed's story."""
    return LONG_FAULTS_SECONDS / FAULTS_SECONDS if seed % LONG == LONG - 1 else 1.0


def plan_of(seed: int) -> list[Fault]:
    """The faults of a seed."""
    seconds = FAULTS_SECONDS * _pace(seed)
    return draw_plan(stream(seed, "plan"), _hosts(), ["user"], seconds)


def play(
    seed: int, *, without: Sequence[int] = (), trace_to: list[str] | None = None
) -> Outcome[Told]:
    """Run the story of `seed`, leaving out the faults of the given numbers."""
    plan = [fault for number, fault in enumerate(plan_of(seed)) if number not in without]

    async def scenario(cluster: SimCluster) -> Told:
        return await _story(cluster, plan)

    return run_cluster(seed, scenario, CONFIG, trace_to=trace_to)


@attrs.define
class Told:
    """What users know of the objects they made: by name, the states that each may be in.

    A state is the value of its data, or GONE.
    """

    possible: dict[str, list[str]] = attrs.field(factory=dict)
    answered: int = 0
    unknown: int = 0
    refused: int = 0

    def summary(self) -> str:
        return f"answered {self.answered}, unknown {self.unknown}, refused {self.refused}"

    def states(self, name: str) -> list[str]:
        return self.possible.get(name, [GONE])

    def certain(self, prefix: str) -> list[str]:
        """Objects that are there, and in one known state. An attempt of unknown outcome may take
        effect much later, so whoever met one leaves that object alone."""
        return [
            name
            for name, states in self.possible.items()
            if name.startswith(prefix) and len(states) == 1 and states != [GONE]
        ]


@attrs.define
class _Operator:
    """Scales and changes the deployment while everything fails."""

    client: Client
    rng: random.Random
    pace: float
    stopped: bool = False

    async def run(self) -> None:
        while not self.stopped:
            await trio.sleep(self.rng.random() * 20 * self.pace)
            template = {"spec": {"containers": [{"name": "web", "image": self.rng.choice(IMAGES)}]}}
            spec = self.rng.choice(({"replicas": self.rng.randrange(1, 6)}, {"template": template}))
            with trio.move_on_after(10):
                with contextlib.suppress(*REQUEST_ERRORS):
                    await self.client.patch(
                        DEPLOYMENTS, "web", "default", {"spec": spec}, type="strategic"
                    )


@attrs.define
class _Landlord:
    """Makes namespaces with something in them and deletes them; the same with deployments."""

    client: Client
    rng: random.Random
    pace: float
    deleted_namespaces: list[str] = attrs.field(factory=list)
    deleted_deployments: list[str] = attrs.field(factory=list)
    made: int = 0
    stopped: bool = False

    async def run(self) -> None:
        while not self.stopped:
            await trio.sleep(self.rng.random() * 10 * self.pace)
            self.made += 1
            name = f"t{self.made}"
            act = self._namespace if self.rng.random() < 0.5 else self._deployment
            # The deletion of what may not be there tells nothing: hence one by one.
            with contextlib.suppress(*REQUEST_ERRORS):
                await act(name)

    async def _namespace(self, name: str) -> None:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self.client.create(NAMESPACES, namespace)
        content = _config_map("content", name)
        content["metadata"]["namespace"] = name
        await self.client.create(CONFIG_MAPS, content)
        await trio.sleep(self.rng.random() * 5)
        await self.client.delete(NAMESPACES, name)
        self.deleted_namespaces.append(name)

    async def _deployment(self, name: str) -> None:
        await self.client.create(DEPLOYMENTS, web(1, name))
        await trio.sleep(self.rng.random() * 5)
        await self.client.delete(DEPLOYMENTS, name, "default", propagation="Background")
        self.deleted_deployments.append(name)

    async def cleared(self) -> bool:
        """Whether nothing is left of what was deleted."""
        namespaces = {o["metadata"]["name"] for o in (await self.client.list(NAMESPACES)).items}
        left = namespaces & set(self.deleted_namespaces)
        for kind in (PODS, REPLICA_SETS):
            for obj in (await self.client.list(kind, "default")).items:
                if obj["metadata"]["labels"]["app"] in self.deleted_deployments:
                    left.add(obj["metadata"]["name"])
        for obj in (await self.client.list(CONFIG_MAPS)).items:
            if obj["metadata"]["namespace"] in self.deleted_namespaces:
                left.add(obj["metadata"]["name"])
        return not left


@attrs.define
class _Monitor:
    """Watches what must hold at every moment."""

    cluster: SimCluster
    together: dict[str, float] = attrs.field(factory=dict)
    bound: dict[str, str] = attrs.field(factory=dict)

    async def run(self) -> None:
        while True:
            await trio.sleep(0.5)
            for role in ("scheduler", "controller-manager"):
                self._one_leader(role)

    def _one_leader(self, role: str) -> None:
        """Two may believe to lead for a moment after one of them was stopped; not for long."""
        world = self.cluster.world
        leaders = [
            name
            for name, component in self.cluster.running.items()
            if name.startswith(f"{role}-")
            and world.hosts[name].alive
            and not world.hosts[name].paused
            and component.leading
        ]
        if len(leaders) < 2:
            self.together.pop(role, None)
            return
        since = self.together.setdefault(role, self.cluster.now())
        assert self.cluster.now() - since < OVERLAP_SECONDS_MAX, f"{leaders} lead together"

    def on_pod(self, old: Obj | None, new: Obj | None) -> None:
        """A pod is bound once."""
        if new is not None and new["spec"].get("nodeName"):
            uid, node = new["metadata"]["uid"], new["spec"]["nodeName"]
            before = self.bound.setdefault(uid, node)
            assert before == node, f"pod {uid} was bound to {before}, then to {node}"


@attrs.define
class _User:
    """Makes, changes and deletes config maps of its own, one request at a time."""

    number: int
    client: Client
    rng: random.Random
    told: Told
    pace: float
    made: int = 0
    stopped: bool = False

    async def run(self) -> None:
        while not self.stopped:
            await trio.sleep(self.rng.random() * 2 * self.pace)
            mine = self.told.certain(f"u{self.number}-")
            action = self.rng.choice((self._create, self._update, self._delete))
            await action(self.rng.choice(mine) if mine else "")

    async def _attempt(self, name: str, state: str, request: Any) -> None:
        """Send a write, with patience, and note what its answer says."""
        told = self.told
        before = told.states(name)
        told.possible[name] = [*before, state]
        with trio.move_on_after(self.rng.choice((1.0, 5.0, 30.0))):
            try:
                await request()
            except ApiError as error:
                if error.code == 404:
                    raise AssertionError(f"{name} is gone; its user was told {before}") from error
                if error.code < 500:
                    told.possible[name] = before
                    told.refused += 1
            except UnknownOutcome:
                pass
            except Unreachable:
                told.possible[name] = before
                told.refused += 1
            else:
                told.possible[name] = [state]
                told.answered += 1
        told.unknown += len(told.possible[name]) > 1

    async def _create(self, _: str) -> None:
        self.made += 1
        name, value = f"u{self.number}-{self.made}", f"created {self.made}"
        obj = _config_map(name, value)
        await self._attempt(name, value, lambda: self.client.create(CONFIG_MAPS, obj))

    async def _update(self, name: str) -> None:
        if not name:
            return
        self.made += 1
        value = f"updated {self.made}"
        patch = {"data": {"value": value}}
        await self._attempt(
            name, value, lambda: self.client.patch(CONFIG_MAPS, name, "default", patch)
        )

    async def _delete(self, name: str) -> None:
        if name:
            await self._attempt(
                name, GONE, lambda: self.client.delete(CONFIG_MAPS, name, "default")
            )


def _config_map(name: str, value: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"value": value},
    }


async def _story(cluster: SimCluster, plan: list[Fault]) -> Told:
    world, client, told = cluster.world, cluster.client(), Told()
    rng = world.rng("users")
    pace = _pace(world.seed)
    monitor, operator = _Monitor(cluster), _Operator(client, world.rng("operator"), pace)
    landlord = _Landlord(client, world.rng("landlord"), pace)
    users = [_User(n, client, rng, told, pace) for n in range(1, USERS + 1)]
    await client.create(DEPLOYMENTS, web(REPLICAS))
    await client.create(SERVICES, SERVICE)
    host = world.host("user")
    async with (
        open_informer(client, CONFIG_MAPS, host, "default") as informer,
        open_informer(client, PODS, host, "default") as pods,
    ):
        pods.add_handler(monitor.on_pod)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(monitor.run)
            nursery.start_soon(operator.run)
            nursery.start_soon(landlord.run)
            for user in users:
                nursery.start_soon(user.run)
            await carry_out(world, plan)
            for name in _hosts():
                world.resume(name)
                await world.restart(name)
            members = [name for name in _hosts() if name.startswith("raft-")]
            async with core_only(world, world.rng("core"), members):
                operator.stopped = landlord.stopped = True
                stage = "rolling out"
                with trio.move_on_after(LIVENESS_SECONDS) as scope:
                    await _converge(cluster, users, informer)
                    stage = "deleting"
                    await cluster.eventually(landlord.cleared)
            assert not scope.cancelled_caught, f"no end of {stage}: {await _state(cluster)}"
            nursery.cancel_scope.cancel()
    return told


async def _converge(cluster: SimCluster, users: list[_User], informer: Informer) -> None:
    told = users[0].told
    answered = told.answered
    while told.answered < answered + USERS:
        await trio.sleep(1)
    for user in users:
        user.stopped = True
    await trio.sleep(60)

    async def rolled_out() -> bool:
        """As many pods as wanted, all of the newest template, no others; the service's
        endpoints are theirs."""
        client = cluster.client()
        deployment = await client.get(DEPLOYMENTS, "web", "default")
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        pods = (await client.list(PODS, "default", labels="app=web")).items
        images = {pod["spec"]["containers"][0]["image"] for pod in pods}
        running = [name for name in await running_pods(cluster) if name.startswith("web-")]
        slices = await client.list(
            ENDPOINT_SLICES, "default", labels="kubernetes.io/service-name=web"
        )
        addresses = [e["addresses"][0] for s in slices.items for e in s["endpoints"] or ()]
        return (
            len(running) == len(pods) == deployment["spec"]["replicas"]
            and images == {image}
            and sorted(addresses) == sorted(pod["status"]["podIP"] for pod in pods)
        )

    await cluster.eventually(rolled_out)
    listed: dict[str, str] = {}

    async def informed() -> bool:
        listing = await cluster.client().list(CONFIG_MAPS, "default")
        listed.clear()
        listed.update({o["metadata"]["name"]: o["data"].get("value", "") for o in listing.items})
        seen = {o["metadata"]["name"]: o["data"].get("value", "") for o in informer.list()}
        return seen == listed

    await cluster.eventually(informed)
    for name, states in told.possible.items():
        found = listed.get(name, GONE)
        assert found in states, f"{name} is {found!r}; its user was told {states}"
    strangers = [name for name in listed if name.startswith("u") and name not in told.possible]
    assert not strangers, f"nobody made {strangers}"


async def _state(cluster: SimCluster) -> str:
    with trio.move_on_after(60):
        return str(await running_pods(cluster))
    return "no answer"
