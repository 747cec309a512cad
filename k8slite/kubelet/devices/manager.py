"""Device plugins: they register, tell of their devices, and say what a container needs to use one.

Owns: the socket `kubelet.sock` in its directory, one task a plugin, the ledger and its checkpoint.
A plugin whose stream ends has lost its devices until it registers again. gRPC's modules are
imported when the first plugin comes: most nodes have none.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Container
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import attrs
import trio

from k8slite.api.meta import Obj
from k8slite.api.quantity import value
from k8slite.client.background import open_background
from k8slite.kubelet.devices.grant import Grant
from k8slite.kubelet.devices.ledger import Ledger, NoDevices
from k8slite.kubelet.runtime.interface import ConfigFailure, Device, Mount

__all__ = ["DeviceManager", "open_device_manager"]

log = logging.getLogger(__name__)

SOCKET = "kubelet.sock"
CHECKPOINT = "kubelet_internal_checkpoint"
ANSWER_SECONDS = 10.0
BACKLOG = 16
HEALTHY = "Healthy"


@attrs.define
class _Plugin:
    endpoint: str
    pre_start: bool
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class DeviceManager:
    """Made by `open_device_manager`. `changed` is told when there are other devices than before."""

    def __init__(self, directory: Path, handle: _Handle, nursery: trio.Nursery) -> None:
        self._directory = directory
        self._handle = handle
        self._nursery = nursery
        self._plugins: dict[str, _Plugin] = {}
        self._ledger = Ledger()
        self._ledger.load(directory / CHECKPOINT)
        self.changed: Callable[[], None] = lambda: None

    def counts(self) -> dict[str, tuple[int, int]]:
        """By resource: how many there are, and how many are healthy."""
        return self._ledger.counts()

    def keep_only(self, pods: Container[str]) -> None:
        """Take back what pods had that are gone."""
        if self._ledger.keep_only(pods):
            self._ledger.save(self._directory / CHECKPOINT)

    async def allocate(self, pod: Obj, container: Obj) -> Grant:
        """What the container needs for the devices that it asks for. Raises ConfigFailure."""
        grant = Grant()
        limits = (container.get("resources") or {}).get("limits") or {}
        for resource, amount in limits.items():
            if resource in self._ledger.devices and value(str(amount)):
                grant += await self._allocate(pod, container, resource, value(str(amount)))
        return grant

    async def _allocate(self, pod: Obj, container: Obj, resource: str, amount: int) -> Grant:
        from google.protobuf.message import DecodeError

        from k8slite.kubelet.devices.grpc import GrpcError, unary_call
        from k8slite.kubelet.devices.messages import ALLOCATE, MESSAGES, PRE_START

        plugin = self._plugins.get(resource)
        if plugin is None:
            raise ConfigFailure(f"Allocate failed: the plugin of {resource} is not registered")
        try:
            uid = pod["metadata"]["uid"]
            ids = self._ledger.take(uid, container["name"], resource, amount)
        except NoDevices as error:
            raise ConfigFailure(f"Allocate failed due to {error}, which is unexpected") from None
        self._ledger.save(self._directory / CHECKPOINT)
        request = MESSAGES["AllocateRequest"]()
        request.container_requests.add().devicesIDs.extend(ids)
        try:
            with trio.fail_after(ANSWER_SECONDS):
                path = self._path(plugin)
                body = await unary_call(path, ALLOCATE, request.SerializeToString())
                if plugin.pre_start:
                    start = MESSAGES["PreStartContainerRequest"](devicesIDs=ids)
                    await unary_call(path, PRE_START, start.SerializeToString())
            [answer] = MESSAGES["AllocateResponse"].FromString(body).container_responses
        except (GrpcError, OSError, DecodeError, ValueError, trio.TooSlowError) as error:
            raise ConfigFailure(f"Allocate failed due to rpc error: {error}") from None
        return Grant(
            tuple((each.key, each.value) for each in answer.envs),
            tuple(
                Mount(each.host_path, each.container_path, read_only=each.read_only)
                for each in answer.mounts
            ),
            tuple(
                Device(each.host_path, each.container_path, each.permissions or "mrw")
                for each in answer.devices
            ),
        )

    def _path(self, plugin: _Plugin) -> str:
        return self._handle.path(plugin.endpoint)

    # ------------------------------------------------------------ registration

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One plugin that comes to register."""
        from k8slite.kubelet.devices.grpc import GrpcError, serve_connection
        from k8slite.kubelet.devices.messages import REGISTER

        try:
            async with stream:
                await serve_connection(stream, {REGISTER: self._register})
        except (GrpcError, trio.BrokenResourceError) as error:
            log.info("a device plugin left: %s", error)

    async def _register(self, body: bytes) -> bytes:
        from google.protobuf.message import DecodeError

        from k8slite.kubelet.devices.grpc import GrpcError
        from k8slite.kubelet.devices.messages import MESSAGES, VERSION

        try:
            request = MESSAGES["RegisterRequest"].FromString(body)
        except DecodeError as error:
            raise GrpcError(str(error)) from None
        resource = request.resource_name
        if request.version != VERSION:
            raise GrpcError(f"version {request.version!r} is not supported: {VERSION} is")
        if "/" not in resource or resource.startswith("kubernetes.io/"):
            raise GrpcError(f"the ResourceName {resource!r} is invalid")
        if not request.endpoint or "/" in request.endpoint:
            raise GrpcError(f"the endpoint {request.endpoint!r} is no name of a socket")
        before = self._plugins.get(resource)
        if before is not None:
            before.scope.cancel()
        plugin = _Plugin(request.endpoint, request.options.pre_start_required)
        self._plugins[resource] = plugin
        self._nursery.start_soon(self._follow, resource, plugin)
        log.info("device plugin registered resource=%s endpoint=%s", resource, request.endpoint)
        return b""

    async def _follow(self, resource: str, plugin: _Plugin) -> None:
        """Until its stream ends: what the plugin tells of its devices."""
        from google.protobuf.message import DecodeError

        from k8slite.kubelet.devices.grpc import GrpcError, stream_call
        from k8slite.kubelet.devices.messages import LIST_AND_WATCH, MESSAGES

        with plugin.scope:
            try:
                calls = stream_call(self._path(plugin), LIST_AND_WATCH, b"")
                async with aclosing(calls) as answers:
                    async for body in answers:
                        told = MESSAGES["ListAndWatchResponse"].FromString(body).devices
                        found = {each.ID: each.health == HEALTHY for each in told}
                        is_news = found.keys() != self._ledger.devices.get(resource, {}).keys()
                        self._ledger.devices[resource] = found
                        if is_news:
                            self._ledger.save(self._directory / CHECKPOINT)
                        self.changed()
            except (GrpcError, OSError, DecodeError) as error:
                log.warning("device plugin lost resource=%s: %s", resource, error)
        if self._plugins.get(resource) is plugin:
            del self._plugins[resource]
            self._ledger.lost(resource)
            self.changed()


@attrs.frozen
class _Handle:
    """A directory held open: a socket's path has at most 108 bytes, and ours may be longer."""

    descriptor: int

    def path(self, name: str) -> str:
        return f"/proc/self/fd/{self.descriptor}/{name}"

    def close(self) -> None:
        os.close(self.descriptor)


def _fresh_directory(directory: Path) -> _Handle:
    """Without the socket of an earlier kubelet."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SOCKET).unlink(missing_ok=True)
    return _Handle(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


@asynccontextmanager
async def open_device_manager(directory: Path) -> AsyncIterator[DeviceManager]:
    """A manager whose socket is in `directory`, until left. Raises OSError."""
    handle = _fresh_directory(directory)
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    with sock, contextlib.closing(handle):
        await sock.bind(handle.path(SOCKET))
        sock.listen(BACKLOG)
        async with open_background() as nursery:
            manager = DeviceManager(directory, handle, nursery)
            listener = trio.SocketListener(sock)
            nursery.start_soon(trio.serve_listeners, manager.serve, [listener])
            yield manager
