"""A kubelet in one process: an API in memory, a fake runtime, virtual time."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from k8slite.api.kinds import EVENTS, PODS, Kind
from k8slite.api.meta import Obj, copy, format_time, make_key
from k8slite.api.patch import strategic_merge_patch
from k8slite.api.status import conflict
from k8slite.client.client import ClientConfig
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.kubelet import Kubelet, open_kubelet_with
from k8slite.kubelet.network import LoopbackNetwork
from k8slite.kubelet.runtime.fake import FakeRuntime, Life, open_fake_runtime
from k8slite.kubelet.runtime.interface import ContainerConfig, PodNetwork, Runtime, SandboxConfig
from raftkv.host import Address, Host
from tests.client.fake_api import FakeApi
from tests.client.world import EPOCH, MemoryHost

NODE = "node-1"
CLIENT = ClientConfig(endpoints=(Address("127.0.0.1", 1),))


class KubeletApi(FakeApi):
    """The API in memory, with strategic merge patches and grace periods for pods."""

    def __init__(self) -> None:
        super().__init__()
        self.reviews: list[Obj] = []

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        type: str = "merge",  # noqa: A002
        subresource: str = "",
    ) -> Obj:
        if type != "strategic":
            return await super().patch(
                kind, name, namespace, patch, type=type, subresource=subresource
            )
        await self._enter("patch/status", kind, make_key(namespace, name))
        old = self._find(kind, name, namespace)
        uid = (patch.get("metadata") or {}).get("uid", old["metadata"]["uid"])
        if uid != old["metadata"]["uid"]:
            raise conflict(kind, name, "the uid does not match")
        new = strategic_merge_patch(kind, copy(old), copy(patch))
        stored = self._update(kind, old, new)
        self._leave("patch/status", kind, make_key(namespace, name))
        return copy(stored)

    async def create(self, kind: Kind, obj: Obj, **more: Any) -> Obj:
        """Reviews are answered: masters may do all, and tokens are their users' names."""
        spec = obj.get("spec") or {}
        if kind.kind == "SubjectAccessReview":
            self.reviews.append(spec)
            return {**obj, "status": {"allowed": "system:masters" in spec["groups"]}}
        if kind.kind == "TokenReview":
            user = {"username": spec["token"], "groups": ["system:masters"]}
            known = not spec["token"].startswith("bad")
            return {**obj, "status": {"authenticated": known, "user": user if known else {}}}
        return await super().create(kind, obj, **more)

    def end(self, key: str, grace: int | None = None) -> None:
        """As a user's DELETE does to a running pod."""

        def mark(pod: Obj) -> None:
            seconds = pod["spec"].get("terminationGracePeriodSeconds", 30)
            seconds = seconds if grace is None else grace
            ends = EPOCH + trio.current_time() + seconds
            pod["metadata"]["deletionTimestamp"] = format_time(ends)
            pod["metadata"]["deletionGracePeriodSeconds"] = seconds

        self.change(PODS, key, mark)

    def events(self, name: str = "p") -> list[tuple[str, str]]:
        return [
            (e["reason"], e["message"])
            for e in self.all(EVENTS)
            if e["involvedObject"]["name"] == name
        ]


_numbers = itertools.count(1)


def pod(name: str = "p", *, uid: str = "", containers: Any = None, **spec: Any) -> Obj:
    """A pod bound to our node, as the API defaults it."""
    if containers is None:
        containers = [container()]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid or f"uid-{next(_numbers)}",
            "generation": 1,
        },
        "spec": {
            "nodeName": NODE,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": containers,
            **spec,
        },
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }


def container(name: str = "c", *command: str, **fields: Any) -> Obj:
    made: Obj = {"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", **fields}
    if command:
        made["command"] = list(command)
    return made


@attrs.frozen
class Node:
    """A running kubelet and what is around it."""

    api: KubeletApi
    kubelet: Kubelet
    runtime: Runtime
    host: Host

    def status(self, key: str = "default/p") -> Obj:
        found: Obj = self.api.read(PODS, key).get("status") or {}
        return found

    def state(self, key: str = "default/p", number: int = 0) -> Obj:
        statuses = self.status(key).get("containerStatuses") or [{"state": {}}]
        found: Obj = statuses[number]["state"]
        return found

    def condition(self, kind: str, key: str = "default/p") -> str:
        conditions = self.status(key).get("conditions") or ()
        return next((c["status"] for c in conditions if c["type"] == kind), "")

    async def until(self, check: Callable[[], bool], seconds: float = 25.0) -> None:
        """Wait, in virtual or real time, until it is so."""
        step = 0.01
        with trio.move_on_after(seconds):
            while True:
                with contextlib.suppress(KeyError, IndexError, ValueError):  # not there yet
                    if check():
                        return
                await trio.sleep(step)
                step = min(step * 1.05, 0.2)
        raise AssertionError(f"not within {seconds} s: {self.status()}")


def config(root_dir: str = "/nowhere", **fields: Any) -> KubeletConfig:
    return KubeletConfig(
        **{
            "client": CLIENT,
            "node_name": NODE,
            "node_ip": "127.100.0.1",
            "root_dir": root_dir,
            "listen": Address("127.0.0.1", 0),
            "serve": False,
            "service_links": False,
            "eviction": (),
            **fields,
        }
    )


@asynccontextmanager
async def open_node(
    runtime: Runtime,
    *,
    api: KubeletApi | None = None,
    host: Host | None = None,
    network: PodNetwork | None = None,
    **fields: Any,
) -> AsyncIterator[Node]:
    api = api or KubeletApi()
    host = host or MemoryHost()
    network = network or LoopbackNetwork("127.244.1.0/24")
    async with open_kubelet_with(api, config(**fields), host, runtime, network) as kubelet:
        yield Node(api, kubelet, runtime, host)


@asynccontextmanager
async def open_fake_node(
    lives: dict[str, Life] | None = None, **fields: Any
) -> AsyncIterator[tuple[Node, FakeRuntime]]:
    """A node whose containers live as `lives` says by name, else for ever."""

    def life(sandbox: SandboxConfig, config: ContainerConfig) -> Life:
        return (lives or {}).get(config.name, Life())

    host = MemoryHost()
    async with open_fake_runtime(host, life=life) as runtime:
        async with open_node(runtime, host=host, **fields) as node:
            yield node, runtime
