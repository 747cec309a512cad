"""What runs in a forked process, by role: how it is opened, and what it tells of itself.

A role's modules are imported by `load`, in the zygote; here only when it is opened.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from k8slite.cluster.layout import Layout
from k8slite.cluster.spec import ClusterSpec, Component, Place
from k8slite.cluster.timings import Timings, timings_of
from raftkv.errors import KvError
from raftkv.host import Address, Listener, Tls
from raftkv.os_host import OsHost, TcpListener, TcpNet, load_tls

if TYPE_CHECKING:
    from k8slite.apiserver.config import StaticToken
    from k8slite.client.client import ClientConfig

__all__ = ["EXPECTED", "JOBS", "Running", "load", "open_component"]

EXPECTED: Final = (KvError, OSError, ssl.SSLError, ValueError)
"""What a component may end with that is no bug: a broken disk, a taken port, a damaged file."""
CONNECTIONS: Final = 16

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "raftkv": ("raftkv.server", "k8slite.cluster.child"),
    "apiserver": ("k8slite.apiserver.server", "k8slite.apiserver.store.raftkv"),
    "scheduler": ("k8slite.scheduler.scheduler",),
    "controller-manager": ("k8slite.controllers.manager",),
    "kubelet": (
        "k8slite.kubelet.kubelet",
        "k8slite.kubelet.runtime.choose",
        "k8slite.kubelet.network",
        "k8slite.kubelet.images.store",
    ),
    "proxy": ("k8slite.proxy.proxy", "k8slite.proxy.userspace"),
    "network": ("k8slite.network.topology",),
}


def load(role: str) -> None:
    """Import what a role needs."""
    for module in MODULES.get(role, ()):
        importlib.import_module(module)


async def _stay() -> None:
    await trio.lowlevel.checkpoint()


@attrs.frozen
class Running:
    """An open component: its status as a flat map, and what it does before it is stopped."""

    status: Callable[[], dict[str, Any]]
    leave: Callable[[], Awaitable[None]] = _stay


@attrs.frozen
class Context:
    """Everything a component is opened from."""

    component: Component
    spec: ClusterSpec
    place: Place
    layout: Layout
    host: OsHost

    @property
    def timings(self) -> Timings:
        return timings_of(self.spec.fast)

    def pem(self, file: str) -> tuple[str, str]:
        return str(self.layout.pki / f"{file}.crt"), str(self.layout.pki / f"{file}.key")

    def tls(self, authority: str, file: str, *, require_client: bool = True) -> Tls:
        certificate, key = self.pem(file)
        ca = str(self.layout.pki / f"{authority}.crt")
        return load_tls(ca=ca, certificate=certificate, key=key, require_client=require_client)

    def client(self, file: str) -> ClientConfig:
        """How this component reaches the apiservers, as the identity of that file."""
        from k8slite.client.client import ClientConfig

        numbers = list(range(1, self.spec.control_planes + 1))
        turn = (self.component.number - 1) % len(numbers)  # each begins with another one
        return ClientConfig(
            endpoints=tuple(
                self.place.apiserver(number) for number in numbers[turn:] + numbers[:turn]
            ),
            tls=self.tls("ca", file).client,
            user_agent=f"k8slite-{self.component.role}",
            connections_max=CONNECTIONS,
            patience_seconds=self.timings.request_patience,
            silence_seconds=self.timings.watch_silence,
        )


class InheritingNet(TcpNet):
    """A net on which some addresses are listened on already, by descriptors from the supervisor.

    Apiservers share those: each connection is taken by one that runs, and while one is stopped or
    dead the others take all.
    """

    def __init__(self, inherited: dict[Address, int]) -> None:
        super().__init__()
        self._inherited = inherited

    async def listen(self, address: Address) -> Listener:
        fd = self._inherited.get(address)
        if fd is None:
            return await super().listen(address)
        return TcpListener(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))


@asynccontextmanager
async def open_component(request: dict[str, Any], listeners: list[int]) -> AsyncIterator[Running]:
    """The component of a request as the supervisor makes it: see `kept.request_of`."""
    spec = ClusterSpec.from_json(request["spec"])
    place = Place.from_json(request["place"])
    component = Component(request["role"], request["number"])
    host = OsHost(component.name)
    if listeners:
        host.net = InheritingNet(dict(zip(place.shared_addresses(), listeners, strict=True)))
    context = Context(component, spec, place, Layout(Path(request["root"])), host)
    async with OPENERS[component.role](context) as running:
        yield running


# --- the store -----------------------------------------------------------------------------------


@asynccontextmanager
async def _open_raftkv(context: Context) -> AsyncIterator[Running]:
    from raftkv.server import ServerConfig, open_server

    number, spec, place = context.component.number, context.spec, context.place
    members = range(1, spec.raft_members + 1)
    tls = context.tls("store-ca", context.component.name)
    config = ServerConfig(
        id=number,
        name=context.component.name,
        data_dir=str(context.layout.data(context.component.name)),
        client_address=place.raft_client(number),
        peer_address=place.raft_peer(number),
        peers={n: place.raft_peer(n) for n in members} if len(members) > 1 else {},
        cluster=spec.name,
        tls=tls,
        peer_tls=tls,
        tick_seconds=context.timings.raft_tick,
        campaign_at_start=number == 1,
    )
    async with open_server(config, context.host) as server:

        async def leave() -> None:
            await server.hand_over()

        yield Running(server.status, leave)


# --- the control plane ---------------------------------------------------------------------------


@asynccontextmanager
async def _open_apiserver(context: Context) -> AsyncIterator[Running]:
    from k8slite.apiserver.config import ApiserverConfig, StoreConfig
    from k8slite.apiserver.server import open_apiserver

    spec, place, number = context.spec, context.place, context.component.number
    store = StoreConfig()
    if spec.store == "raftkv":
        members = range(1, spec.raft_members + 1)
        store = StoreConfig(
            tuple(place.raft_client(n) for n in members), context.tls("store-ca", "store-client")
        )
    config = ApiserverConfig(
        listen=(place.apiserver(number), *place.shared_addresses()),
        store=store,
        identity=context.component.name,
        tls=context.tls("ca", "apiserver", require_client=False).server,
        tokens=read_tokens(spec.token_auth_file),
        service_account_private_key=(context.layout.pki / "service-accounts.key").read_bytes(),
        advertise_address=place.host,
        advertise_port=place.port,
        service_cidr=place.service_cidr,
        allow_loopback_endpoints=not spec.bridged,
        kubelet_tls=context.tls("ca", "apiserver-kubelet-client").client,
        bookmark_seconds=context.timings.bookmark,
        endpoint_seconds=context.timings.endpoint,
        toleration_seconds=context.timings.toleration,
    )
    async with open_apiserver(config, context.host) as server:
        yield Running(server.status)


def read_tokens(path: str) -> tuple[StaticToken, ...]:
    """A token file as kube-apiserver's: lines of token, user, uid and "group,group".

    Raises OSError, and ValueError that names the line.
    """
    from k8slite.apiserver.config import StaticToken

    if not path:
        return ()
    tokens = []
    with open(path, newline="") as file:
        for line, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not row:
                continue
            if len(row) < 3 or not row[0] or not row[1]:
                raise ValueError(f'{path}:{line}: must be TOKEN,USER,UID[,"GROUP,GROUP"]')
            groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if row[3:] else ()
            tokens.append(StaticToken(row[0], row[1], row[2], groups))
    return tuple(tokens)


@asynccontextmanager
async def _open_scheduler(context: Context) -> AsyncIterator[Running]:
    from k8slite.scheduler.scheduler import SchedulerConfig, open_scheduler

    lease, renew, retry = context.timings.election
    config = SchedulerConfig(
        client=context.client("scheduler"),
        identity=context.component.name,
        lease_seconds=lease,
        renew_seconds=renew,
        retry_seconds=retry,
    )
    async with open_scheduler(config, context.host) as scheduler:

        def status() -> dict[str, Any]:
            leader = scheduler.leader
            return {
                "leading": leader.leading,
                "leader": leader.holder,
                "transitions": leader.transitions,
                "bound": scheduler.bound,
            }

        yield Running(status)


@asynccontextmanager
async def _open_controller_manager(context: Context) -> AsyncIterator[Running]:
    from k8slite.controllers.context import ControllerTimings
    from k8slite.controllers.manager import ControllerManagerConfig, open_controller_manager

    timings = context.timings
    lease, renew, retry = timings.election
    config = ControllerManagerConfig(
        client=context.client("controller-manager"),
        identity=context.component.name,
        root_ca=(context.layout.pki / "ca.crt").read_text(),
        timings=ControllerTimings(
            node_monitor_period=timings.node_monitor,
            node_monitor_grace=timings.node_grace,
            node_startup_grace=timings.node_startup_grace,
        ),
        lease_seconds=lease,
        renew_seconds=renew,
        retry_seconds=retry,
    )
    async with open_controller_manager(config, context.host) as manager:

        def status() -> dict[str, Any]:
            leader = manager.leader
            return {
                "leading": leader.leading,
                "leader": leader.holder,
                "transitions": leader.transitions,
            }

        yield Running(status)


# --- the nodes -----------------------------------------------------------------------------------


@asynccontextmanager
async def _open_kubelet(context: Context) -> AsyncIterator[Running]:
    from k8slite.kubelet.config import KubeletConfig, KubeletTimings
    from k8slite.kubelet.images.store import ImageStore
    from k8slite.kubelet.kubelet import open_kubelet
    from k8slite.kubelet.network import LoopbackNetwork
    from k8slite.kubelet.runtime.choose import open_runtime
    from k8slite.kubelet.runtime.interface import PodNetwork

    spec, place, number = context.spec, context.place, context.component.number
    root = context.layout.node(context.component.node)
    pod_cidr = place.pod_cidr(number)
    network: PodNetwork
    if spec.bridged:
        from k8slite.network.pods import BridgeNetwork

        network = BridgeNetwork(pod_cidr, root / "network")
    else:
        network = LoopbackNetwork(pod_cidr, root / "network")
    timings = context.timings
    config = KubeletConfig(
        client=context.client(context.component.node),
        node_name=context.component.node,
        node_ip=place.node_address(number),
        root_dir=str(root),
        listen=place.kubelet(number),
        tls=context.tls("ca", context.component.node).server,
        authorized_users=("kube-apiserver-kubelet-client",),
        pod_cidr=pod_cidr,
        provider_id=f"k8slite://{spec.name}/{context.component.node}",
        timings=KubeletTimings(
            node_status=timings.node_status,
            lease=timings.node_lease_renew,
            lease_duration=timings.node_lease,
        ),
    )
    images = ImageStore(context.layout.images)
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            open_runtime(spec.runtime, root, context.host, images)
        )
        kubelet = await stack.enter_async_context(
            open_kubelet(config, context.host, runtime, network)
        )
        yield Running(lambda: {"pods": len(kubelet.pods()), "runtime": spec.runtime})


@asynccontextmanager
async def _open_proxy(context: Context) -> AsyncIterator[Running]:
    from k8slite.proxy.proxy import ProxyConfig, open_proxy
    from k8slite.proxy.userspace import open_userspace_writer
    from k8slite.proxy.writer import Writer

    mode, place = context.spec.proxy, context.place
    config = ProxyConfig(
        client=context.client("proxy"),
        node_name=context.component.node,
        min_sync_seconds=PROXY_SYNC_SECONDS,
    )
    async with AsyncExitStack() as stack:
        writer: Writer
        if mode == "iptables":
            from k8slite.proxy.iptables import IptablesWriter

            writer = IptablesWriter(place.cluster_cidr)
        elif mode == "nftables":
            from k8slite.proxy.nftables import NftablesWriter

            writer = NftablesWriter(place.cluster_cidr)
        else:
            addresses = (place.node_address(context.component.number),)
            writer = await stack.enter_async_context(
                open_userspace_writer(addresses, context.host.net)
            )
        proxy = await stack.enter_async_context(open_proxy(config, context.host, writer))

        def status() -> dict[str, Any]:
            return {
                "mode": mode,
                "ports": proxy.ports,
                "syncs": proxy.syncs,
                "problems": list(proxy.problems),
            }

        yield Running(status)


PROXY_SYNC_SECONDS: Final = 0.1
"""Here a sync is cheap, and a rollout is watched by a person."""

OPENERS: Final[dict[str, Callable[[Context], AbstractAsyncContextManager[Running]]]] = {
    "raftkv": _open_raftkv,
    "apiserver": _open_apiserver,
    "scheduler": _open_scheduler,
    "controller-manager": _open_controller_manager,
    "kubelet": _open_kubelet,
    "proxy": _open_proxy,
}


# --- jobs: short, synchronous, in a process of their own -----------------------------------------


def _network(arguments: dict[str, Any]) -> dict[str, Any]:
    """Make the switch and the nodes of a cluster anew; where they are."""
    from k8slite.network import topology

    cluster = arguments["cluster"]
    switch = topology.create_switch(cluster, arguments["subnet"])
    nodes: list[topology.NodeNetwork] = []
    for number, pod_cidr in enumerate(arguments["pod_cidrs"], 1):
        nodes.append(topology.create_node(switch, number, pod_cidr, others=nodes))
    return {"netns": {f"node-{node.index}": node.netns for node in nodes}}


def _ready(arguments: dict[str, Any]) -> dict[str, Any]:
    """Wait until every node is ready and pods can be made in the namespace `default`."""
    spec, place = ClusterSpec.from_json(arguments["spec"]), Place.from_json(arguments["place"])
    context = Context(
        Component("apiserver", 1), spec, place, Layout(Path(arguments["root"])), OsHost("ready")
    )
    trio.run(_wait_ready, context)
    return {}


async def _wait_ready(context: Context) -> None:
    from k8slite.api.kinds import NODES, SERVICE_ACCOUNTS
    from k8slite.api.meta import get_condition
    from k8slite.api.status import ApiError
    from k8slite.client.client import open_client
    from k8slite.client.errors import ClientError

    async with open_client(context.client("admin"), context.host) as client:
        while True:
            try:
                nodes = (await client.list(NODES)).items
                conditions = [get_condition(node, "Ready") for node in nodes]
                ready = [c for c in conditions if c is not None and c["status"] == "True"]
                if len(ready) >= context.spec.nodes:
                    await client.get(SERVICE_ACCOUNTS, "default", "default")
                    return
            except (ApiError, ClientError):
                pass  # not yet
            await trio.sleep(READY_POLL_SECONDS)


READY_POLL_SECONDS: Final = 0.05


def _clean(arguments: dict[str, Any]) -> dict[str, Any]:
    """Pods, mounts, control groups and the network of a cluster whose components have ended."""
    from k8slite.cluster.cleanup import clean_network, clean_nodes

    layout = Layout(Path(arguments["root"]))
    clean_nodes(layout)
    clean_network(layout.network(arguments["cluster"]))
    return {}


def _node_pods(arguments: dict[str, Any]) -> dict[str, Any]:
    """What happens to a machine happens to its pods: kill, pause or resume those of a node."""
    from k8slite.kubelet.cleanup import cleanup, processes_of

    root = Layout(Path(arguments["root"])).node(arguments["node"])
    if arguments["action"] == "kill":
        cleanup(root)
        return {}
    number = signal.SIGSTOP if arguments["action"] == "pause" else signal.SIGCONT
    for pid in processes_of(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return {}


JOBS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "network": _network,
    "ready": _ready,
    "clean": _clean,
    "node-pods": _node_pods,
}
