"""A cluster on simulated hosts: raftkv members, apiservers, schedulers, controller managers, nodes.

    def test_my_controller() -> None:
        run_cluster(7, scenario)

    async def scenario(cluster: SimCluster) -> None:
        client = cluster.client()
        await client.create(DEPLOYMENTS, ...)
        await cluster.kill_leader("raft")
        await cluster.eventually(lambda: ready(client))

Every component is the real one, on a host of its own; network, disk, clock and containers are
simulated, and the seed decides all of it: `run_cluster` gives the same trace hash for the same seed
in every process. There is no TLS; static tokens say who a component is.

Owns the hosts and who runs on which. A component that ends with an error a supervisor would meet
(a failed disk, an apiserver that is away) is started again after `RESTART_SECONDS`; any other
error ends the run, for it is a bug.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Literal, Protocol, TypeVar

import trio
from attrs import define, field, frozen

from k8slite.api.status import ApiError
from k8slite.apiserver.config import ApiserverConfig, StaticToken, StoreConfig
from k8slite.apiserver.server import open_apiserver
from k8slite.client.client import Client, ClientConfig, open_client
from k8slite.client.errors import REQUEST_ERRORS, UnknownOutcome, Unreachable
from k8slite.controllers.context import ControllerTimings
from k8slite.controllers.manager import ControllerManagerConfig, open_controller_manager
from k8slite.kubelet.config import KubeletConfig, KubeletTimings
from k8slite.kubelet.kubelet import Kubelet, open_kubelet
from k8slite.kubelet.network import LoopbackNetwork
from k8slite.kubelet.runtime.fake import open_fake_runtime
from k8slite.scheduler.scheduler import SchedulerConfig, open_scheduler
from k8slite.testing.keys import simulation_key
from netsim.hosts import SimHost
from netsim.world import Outcome, World, open_world, run
from raftkv.errors import KvError
from raftkv.host import Address
from raftkv.server import ServerConfig, open_server

__all__ = ["ClusterConfig", "SimCluster", "open_cluster", "run_cluster"]

T = TypeVar("T")

API_PORT = 6443
KUBELET_PORT = 10250
STORE_PORT = 2379
PEER_PORT = 2380
ADMIN = "admin"
USER_HOST = "user"
RESTART_SECONDS = 1.0
NO_AUTHORITY = "# there is no TLS in a simulation, hence no authority\n"
LOOK_AGAIN_SECONDS = 0.25
LOOK_AGAIN_SECONDS_MAX = 2.0
LOOK_AGAIN_GROWTH = 1.2
Hosts = str | Sequence[str]
Role = Literal["raft", "scheduler", "controller-manager"]

# What ends a component's process without being a bug: a broken disk, no way to the apiserver.
EXITS: tuple[type[Exception], ...] = (KvError, ApiError, UnknownOutcome, Unreachable, OSError)


@frozen(kw_only=True)
class ClusterConfig:
    """How many of each, and their timings (Kubernetes' own, unless a test shortens them)."""

    raft_members: int = 3
    apiservers: int = 2
    schedulers: int = 2
    controller_managers: int = 2
    nodes: int = 2
    raft_tick_seconds: float = 0.5
    """Five make an election timeout. Longer than raftkv's own: idle hours are simulated tick by
    tick."""
    controllers: ControllerTimings = field(factory=ControllerTimings)
    kubelet: KubeletTimings = field(factory=KubeletTimings)
    users: dict[str, tuple[str, ...]] = field(factory=dict)
    """Further users, each with its groups, for `open_client_as`."""
    node_capacity: dict[str, str] = field(
        factory=lambda: {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi"}
    )


class _Candidate(Protocol):
    @property
    def leading(self) -> bool: ...


@define
class SimCluster:
    """A running cluster. Made by `open_cluster`. Components are called by their host's name:
    `raft-1`, `apiserver-1`, `scheduler-1`, `controller-manager-1`, `node-1`..."""

    world: World
    config: ClusterConfig
    running: dict[str, Any] = field(factory=dict)
    """The handle of each running component, by host name."""
    _admin: Client | None = None

    # Using it

    def client(self) -> Client:
        """A client of the apiservers with all rights, on a host of its own."""
        assert self._admin is not None, "the cluster is open"
        return self._admin

    @asynccontextmanager
    async def open_client_as(self, user: str) -> AsyncIterator[Client]:
        """A client of another identity: one of `ClusterConfig.users`, or a component's host."""
        async with open_client(self.client_config(user), self.world.host(USER_HOST)) as client:
            yield client

    def client_config(self, user: str = ADMIN) -> ClientConfig:
        """How that user's programs reach the apiservers."""
        return ClientConfig(endpoints=self._api_endpoints, token=f"token-{user}", user_agent=user)

    def run(
        self, name: str, program: Callable[[Client, SimHost], Awaitable[object]], user: str = ADMIN
    ) -> SimHost:
        """Run a program of yours (an operator, say) on a host of its own, until the cluster ends.

        It gets a client and its host; `crash(name)` kills it, `restart(name)` runs it again. What
        it raises ends the test, unless a supervisor would restart it for that.
        """

        @asynccontextmanager
        async def opened(host: SimHost) -> AsyncIterator[None]:
            async with open_client(self.client_config(user), host) as client:
                await program(client, host)
                yield None

        return self._supervise(name, opened)

    def now(self) -> float:
        """Seconds since the world began."""
        return self.world.time()

    async def eventually(self, check: Callable[[], Awaitable[T]]) -> T:
        """Call `check` until it gives something true; failing requests count as not yet.

        Callers bound it with `trio.fail_after`; waiting costs virtual time only.
        """
        pause = LOOK_AGAIN_SECONDS
        while True:
            try:
                found = await check()
                if found:
                    return found
            except REQUEST_ERRORS:
                pass
            await trio.sleep(pause)
            pause = min(pause * LOOK_AGAIN_GROWTH, LOOK_AGAIN_SECONDS_MAX)

    # Breaking it

    def leader(self, role: Role) -> str | None:
        """The host that leads, as far as the components themselves know; None between leaders."""
        for name, component in self.running.items():
            if name.startswith(f"{role}-") and self.world.hosts[name].alive:
                if role == "raft" and component.is_leader:
                    return name
                if role != "raft" and component.leading:
                    return name
        return None

    async def wait_leader(self, role: Role) -> str:
        """The host that leads, once there is one."""
        while True:
            leader = self.leader(role)
            if leader is not None:
                return leader
            await trio.sleep(LOOK_AGAIN_SECONDS)

    async def kill_leader(self, role: Role, *, power: bool = False) -> str:
        """Kill the process that leads (with `power`: its machine); the host's name."""
        leader = await self.wait_leader(role)
        self.world.crash(leader, power=power)
        return leader

    def crash(self, host: str, *, power: bool = True) -> None:
        """Cut a host's power (or kill its process only). Nobody restarts it but `restart`."""
        self.world.crash(host, power=power)

    async def restart(self, host: str) -> None:
        """Start a crashed host again, with everything that ran on it."""
        await self.world.restart(host)

    def pause(self, host: str) -> None:
        """Stop a host's process as SIGSTOP does."""
        self.world.pause(host)

    def resume(self, host: str) -> None:
        self.world.resume(host)

    def partition(self, a: Hosts, b: Hosts) -> AbstractContextManager[None]:
        """Nothing passes between the hosts `a` and the hosts `b` while one is inside. Further
        faults (one way, delay, loss, disks) are methods of `world`."""
        return self.world.partition(a, b)

    def isolate(self, host: str) -> AbstractContextManager[None]:
        """Nothing passes between the host and any other while one is inside."""
        return self.world.isolate(host)

    # How it is put together

    @property
    def _store_endpoints(self) -> tuple[Address, ...]:
        return tuple(Address(name, STORE_PORT) for name in self._names("raft"))

    @property
    def _api_endpoints(self) -> tuple[Address, ...]:
        return tuple(Address(name, API_PORT) for name in self._names("apiserver"))

    def _names(self, role: str) -> list[str]:
        config = self.config
        count = {
            "raft": config.raft_members,
            "apiserver": config.apiservers,
            "scheduler": config.schedulers,
            "controller-manager": config.controller_managers,
            "node": config.nodes,
        }[role]
        return [f"{role}-{number}" for number in range(1, count + 1)]

    def _tokens(self) -> tuple[StaticToken, ...]:
        tokens = [StaticToken(f"token-{ADMIN}", ADMIN, groups=("system:masters",))]
        for user, groups in self.config.users.items():
            tokens.append(StaticToken(f"token-{user}", user, groups=groups))
        for role, user in (
            ("scheduler", "system:kube-scheduler"),
            ("controller-manager", "system:kube-controller-manager"),
        ):
            tokens += [StaticToken(f"token-{name}", user) for name in self._names(role)]
        for name in self._names("node"):
            tokens.append(
                StaticToken(f"token-{name}", f"system:node:{name}", groups=("system:nodes",))
            )
        return tuple(tokens)

    def start_components(self) -> None:
        """Start every component on its host. `open_cluster` does."""
        for number, name in enumerate(self._names("raft"), 1):
            self._supervise(name, self._raft(number))
        for number, name in enumerate(self._names("apiserver"), 1):
            self._supervise(name, self._apiserver(number), f"10.0.1.{number}")
        for name in self._names("scheduler"):
            self._supervise(name, self._scheduler(name))
        for name in self._names("controller-manager"):
            self._supervise(name, self._controller_manager(name))
        for number, name in enumerate(self._names("node"), 1):
            self._supervise(name, self._node(number), f"10.0.0.{number}")

    def _supervise(
        self,
        name: str,
        component: Callable[[SimHost], AbstractAsyncContextManager[Any]],
        *addresses: str,
    ) -> SimHost:
        host = self.world.host(name, *addresses)

        async def program() -> None:
            while True:
                try:
                    async with component(host) as handle:
                        self.running[name] = handle
                        await trio.sleep_forever()
                except EXITS as error:
                    self.world.note(f"{name} ended: {type(error).__name__}: {error}")
                await trio.sleep(RESTART_SECONDS)

        host.start(program)
        return host

    def _raft(self, number: int) -> Callable[[SimHost], AbstractAsyncContextManager[Any]]:
        names = self._names("raft")
        config = ServerConfig(
            id=number,
            name=names[number - 1],
            data_dir="raft",
            client_address=Address(names[number - 1], STORE_PORT),
            peer_address=Address(names[number - 1], PEER_PORT),
            peers={id_: Address(name, PEER_PORT) for id_, name in enumerate(names, 1)}
            if len(names) > 1
            else {},
            campaign_at_start=number == 1,
            tick_seconds=self.config.raft_tick_seconds,
            election_ticks=5,
        )
        return lambda host: open_server(config, host)

    def _apiserver(self, number: int) -> Callable[[SimHost], AbstractAsyncContextManager[Any]]:
        name = f"apiserver-{number}"
        config = ApiserverConfig(
            listen=(Address("", API_PORT),),
            store=StoreConfig(self._store_endpoints),
            identity=name,
            tokens=self._tokens(),
            advertise_address=f"10.0.1.{number}",
            service_account_private_key=simulation_key(),
        )
        return lambda host: open_apiserver(config, host)

    def _scheduler(self, name: str) -> Callable[[SimHost], AbstractAsyncContextManager[Any]]:
        config = SchedulerConfig(client=self.client_config(name), identity=name)
        return lambda host: open_scheduler(config, host)

    def _controller_manager(
        self, name: str
    ) -> Callable[[SimHost], AbstractAsyncContextManager[Any]]:
        config = ControllerManagerConfig(
            client=self.client_config(name),
            identity=name,
            timings=self.config.controllers,
            root_ca=NO_AUTHORITY,
        )
        return lambda host: open_controller_manager(config, host)

    def _node(self, number: int) -> Callable[[SimHost], AbstractAsyncContextManager[Any]]:
        name = f"node-{number}"
        pod_cidr = f"10.244.{number}.0/24"
        config = KubeletConfig(
            client=self.client_config(name),
            node_name=name,
            node_ip=f"10.0.0.{number}",
            root_dir=f"/nowhere/{name}",
            listen=Address("", KUBELET_PORT),
            pod_cidr=pod_cidr,
            capacity=self.config.node_capacity,
            timings=self.config.kubelet,
        )

        @asynccontextmanager
        async def open_node(host: SimHost) -> AsyncIterator[Kubelet]:
            async with open_fake_runtime(host) as runtime:
                network = LoopbackNetwork(pod_cidr)
                async with open_kubelet(config, host, runtime, network) as kubelet:
                    yield kubelet

        return open_node


@asynccontextmanager
async def open_cluster(
    seed: int = 0, config: ClusterConfig | None = None, *, world: World | None = None
) -> AsyncIterator[SimCluster]:
    """A cluster that works: every apiserver answers, every node is registered.

    Without `world`, one is made in the current trio run, whose clock should be a MockClock that
    jumps; how tasks are ordered is then up to that run. `run_cluster` decides everything by seed.
    """
    if world is None:
        async with open_world(seed) as made, _cluster_in(made, config) as cluster:
            yield cluster
    else:
        async with _cluster_in(world, config) as cluster:
            yield cluster


@asynccontextmanager
async def _cluster_in(world: World, config: ClusterConfig | None) -> AsyncIterator[SimCluster]:
    cluster = SimCluster(world, config or ClusterConfig())
    cluster.start_components()
    async with open_client(cluster.client_config(ADMIN), world.host(USER_HOST)) as client:
        cluster._admin = client
        expected = sum(len(cluster._names(role)) for role in ROLES)
        while len(cluster.running) < expected:
            await trio.sleep(LOOK_AGAIN_SECONDS)
        yield cluster


ROLES = ("raft", "apiserver", "scheduler", "controller-manager", "node")


def run_cluster(
    seed: int,
    scenario: Callable[[SimCluster], Awaitable[T]],
    config: ClusterConfig | None = None,
    *,
    trace_to: list[str] | None = None,
) -> Outcome[T]:
    """Run a scenario on a fresh cluster; its result, and the hash that tells two runs apart.

    Everything is decided by the seed. `trace_to` gets every line of the trace. What the scenario
    raises carries the seed, the virtual time and the last lines of the trace as notes.
    """

    async def main(world: World) -> T:
        async with open_cluster(seed, config, world=world) as cluster:
            return await scenario(cluster)
        raise AssertionError("a cluster swallows nothing")

    return run(seed, main, trace_to=trace_to)
