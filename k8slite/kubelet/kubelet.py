"""The kubelet: runs the pods that the scheduler has given to its node, and says how they are.

Owns the node's registration and heartbeats, one worker a pod, the periodic listing of the runtime,
and the server. Pods of the API come by an informer; what the runtime has and the API has not is
ended too. Nothing is stopped when the kubelet leaves: pods go on, and the next kubelet adopts them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from k8slite.api.kinds import PODS, SERVICES
from k8slite.api.meta import Obj
from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.client import open_client
from k8slite.client.events import open_event_recorder
from k8slite.client.informer import Informer, open_informer
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.containers.backoff import Backoff
from k8slite.kubelet.context import Context, Devices, NoDevices
from k8slite.kubelet.eviction.manager import EvictionManager
from k8slite.kubelet.eviction.ranking import Verdict
from k8slite.kubelet.image_garbage import collect_images
from k8slite.kubelet.node.admission import Rejection, admit
from k8slite.kubelet.node.heartbeat import Heartbeat
from k8slite.kubelet.node.node import allocatable, read_machine
from k8slite.kubelet.node.static_pods import StaticPods
from k8slite.kubelet.paths import Paths
from k8slite.kubelet.pods import TERMINAL, is_mirror
from k8slite.kubelet.runtime.interface import PodNetwork, Runtime, SandboxStatus
from k8slite.kubelet.serving.authorization import Gate
from k8slite.kubelet.serving.http_server import serve
from k8slite.kubelet.serving.server import Server
from k8slite.kubelet.stats.machine import read_machine_state
from k8slite.kubelet.stats.sampler import Sampler
from k8slite.kubelet.stats.server import Stats
from k8slite.kubelet.status_manager import StatusManager
from k8slite.kubelet.volumes.volume_files import remove_pod_directory
from k8slite.kubelet.worker import PodWorker
from raftkv.host import Address, Host, Listener

log = logging.getLogger(__name__)

STARTING = "Starting kubelet."


class Kubelet:
    """A running kubelet. Made by `open_kubelet`."""

    def __init__(self, context: Context, pods: Informer, nursery: trio.Nursery) -> None:
        self._context = context
        self._pods = pods
        self._nursery = nursery
        self._workers: dict[str, PodWorker] = {}
        self.address: Address = context.config.listen
        self.conditions: Callable[[], Collection[str]] = frozenset
        """What the node is short of; set by whoever looks."""

    @property
    def node_name(self) -> str:
        return self._context.config.node_name

    def pods(self) -> list[Obj]:
        """The pods of this node, as the API shows them."""
        return [worker.pod for worker in self._workers.values()]

    def statistics(self) -> dict[str, int]:
        return {"workers": len(self._workers), "patches": self._context.statuses.patches}

    def on_pod(self, old: Obj | None, new: Obj | None) -> None:
        """The informer's handler."""
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            worker = self._workers.get(old["metadata"]["uid"])
            if worker is not None:
                worker.removed()
        if new is not None and not is_mirror(new):
            worker = self._workers.get(new["metadata"]["uid"])
            if worker is None:
                self.admit(new)
            else:
                worker.update(new)

    def end(self, uid: str) -> None:
        """A static pod's file is gone."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.removed()

    def admit(self, pod: Obj) -> None:
        """A pod that no kubelet has begun with is looked at first."""
        status = pod.get("status") or {}
        others = [p for p in self.pods() if (p.get("status") or {}).get("phase") not in TERMINAL]
        refused = None
        if not status.get("startTime") and not pod["metadata"].get("deletionTimestamp"):
            refused = admit(
                pod,
                others,
                allocatable=self._allocatable(),
                conditions=self.conditions(),
            )
        self._start(pod, refused)

    def _allocatable(self) -> dict[str, str]:
        healthy = {name: str(n) for name, (_, n) in self._context.devices.counts().items()}
        return {**allocatable(self._context.config, self._context.machine), **healthy}

    def evict(self, pod: Obj, verdict: Verdict) -> None:
        """End a pod at once, as Failed."""
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.evict(*verdict)

    def _start(self, pod: Obj, refused: Rejection | None = None) -> PodWorker:
        worker = PodWorker(self._context, pod, done=self._forget)
        if refused is not None:
            worker.reject(*refused)
        self._workers[worker.uid] = worker
        self._nursery.start_soon(worker.run, name=f"pod {pod['metadata']['name']}")
        return worker

    def _forget(self, uid: str) -> None:
        del self._workers[uid]

    async def watch_runtime(self) -> None:
        """Hand on the runtime's announcements."""
        async for uid in self._context.runtime.events:
            worker = self._workers.get(uid)
            if worker is not None:
                worker.wake()

    async def relist(self) -> None:
        """Look for what was not announced, and for what nobody asked for."""
        while True:
            await self._end_orphans()
            self._context.devices.keep_only(self._workers)
            await trio.sleep(self._context.config.timings.relist)

    async def _end_orphans(self) -> None:
        runtime = self._context.runtime
        await runtime.list_containers()  # notices what has ended, and announces it
        for sandbox in await runtime.list_pod_sandbox():
            if sandbox.pod_uid not in self._workers:
                log.info("orphan pod=%s/%s", sandbox.namespace, sandbox.name)
                self._start(_orphan(sandbox)).removed()
        if self._context.on_disk:
            for path in self._stray_directories():
                await trio.to_thread.run_sync(remove_pod_directory, path)

    def _stray_directories(self) -> list[Path]:
        try:
            entries = list(os.scandir(self._context.paths.pods))
        except FileNotFoundError:
            return []
        return [Path(entry.path) for entry in entries if entry.name not in self._workers]


def _orphan(sandbox: SandboxStatus) -> Obj:
    """A stand-in for a pod of which only its sandbox is known."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": sandbox.name,
            "namespace": sandbox.namespace,
            "uid": sandbox.pod_uid,
        },
        "spec": {
            "containers": [],
            "terminationGracePeriodSeconds": sandbox.grace_seconds,
            "hostNetwork": sandbox.host_network,
        },
        "status": {},
    }


def _node_reference(name: str) -> Obj:
    """The kubelet's events about its node carry the name as uid, as Kubernetes' do."""
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name}


@asynccontextmanager
async def open_kubelet(
    config: KubeletConfig, host: Host, runtime: Runtime, network: PodNetwork
) -> AsyncGenerator[Kubelet]:
    """A kubelet whose Node is registered and whose pods are known.

    Entering waits for the apiserver; the caller bounds that. Leaving stops no pod.
    """
    async with open_client(config.client, host) as api:
        async with open_kubelet_with(api, config, host, runtime, network) as kubelet:
            yield kubelet


@asynccontextmanager
async def open_kubelet_with(
    api: Api, config: KubeletConfig, host: Host, runtime: Runtime, network: PodNetwork
) -> AsyncGenerator[Kubelet]:
    """As `open_kubelet`, on an API that is there already (tests)."""
    if runtime.features.real_processes:
        await trio.to_thread.run_sync(lambda: os.makedirs(config.root_dir, exist_ok=True))
    machine = read_machine(config, real=runtime.features.real_processes)
    timings = config.timings
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(
            open_event_recorder(api, host, "kubelet", config.node_name)
        )
        services: Informer | None = None
        if config.service_links:
            services = await stack.enter_async_context(open_informer(api, SERVICES, host))
        pods = await stack.enter_async_context(
            open_informer(api, PODS, host, fields=f"spec.nodeName={config.node_name}")
        )
        listener: Listener | None = None
        if config.serve:
            listener = await host.net.listen(config.listen)
            stack.push_async_callback(listener.aclose)
        nursery = await stack.enter_async_context(open_background())
        devices: Devices = NoDevices()
        if config.device_plugins and runtime.features.real_processes:
            from k8slite.kubelet.devices.manager import open_device_manager

            directory = Path(config.root_dir) / "device-plugins"
            devices = plugins = await stack.enter_async_context(open_device_manager(directory))
        context = Context(
            config=config,
            host=host,
            api=api,
            runtime=runtime,
            network=network,
            recorder=recorder,
            statuses=StatusManager(api, retry_seconds=timings.retry),
            services=lambda: services.list() if services is not None else (),
            machine=machine,
            paths=Paths(Path(config.root_dir)),
            backoff=Backoff(timings.backoff_initial, timings.backoff_max),
            devices=devices,
            pods=lambda: kubelet.pods(),
        )
        kubelet = Kubelet(context, pods, nursery)
        sampler = Sampler(host, runtime, timings.stats)
        if listener is not None:
            kubelet.address = listener.address
            gate = None
            if config.tls is not None:
                gate = Gate(api, config.node_name, frozenset(config.authorized_users))
            stats = Stats(config, host, runtime, kubelet.pods, sampler)
            server = Server(config, host, runtime, kubelet.pods, gate, stats)
            nursery.start_soon(serve, listener, server.handle, config.tls)
        heartbeat = Heartbeat(api, config, host, runtime, machine, kubelet.address.port)
        statics = StaticPods(
            config,
            host,
            api,
            heartbeat.node,
            kubelet.admit,
            kubelet.end,
            context.statuses.mirrored,
        )
        statics.scan()  # they run though there is no apiserver
        if config.static_pod_path:
            nursery.start_soon(statics.watch_files)
        heartbeat.devices = devices.counts
        if config.device_plugins and runtime.features.real_processes:
            plugins.changed = heartbeat.hurry
        await heartbeat.register()
        recorder.event_for(_node_reference(config.node_name), "Normal", "Starting", STARTING)
        nursery.start_soon(context.statuses.run)
        nursery.start_soon(heartbeat.renew_lease)
        nursery.start_soon(heartbeat.report_status)
        await pods.wait_synced()
        if services is not None:
            await services.wait_synced()
        pods.add_handler(kubelet.on_pod)
        pods.add_handler(statics.on_pod)
        if config.static_pod_path:
            nursery.start_soon(statics.keep_mirrors)
        nursery.start_soon(kubelet.watch_runtime)
        warn = partial(recorder.event_for, _node_reference(config.node_name), "Warning")
        if config.serve or runtime.features.real_processes:
            nursery.start_soon(sampler.run)
        if runtime.features.real_processes:
            manager = EvictionManager(
                config,
                host,
                runtime,
                sampler,
                partial(trio.to_thread.run_sync, read_machine_state, config.root_dir, host.now()),
                kubelet.pods,
                kubelet.evict,
                warn,
                context.paths,
            )
            kubelet.conditions = heartbeat.pressures = manager.conditions
            nursery.start_soon(manager.run)
        nursery.start_soon(collect_images, config, runtime, warn)
        nursery.start_soon(kubelet.relist)
        yield kubelet
