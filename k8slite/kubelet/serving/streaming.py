"""exec, attach and port-forward of the kubelet's server, in Kubernetes' own paths:

    /exec/NAMESPACE/POD[/UID]/CONTAINER?command=...&input=1&output=1&error=1&tty=1
    /attach/NAMESPACE/POD[/UID]/CONTAINER?...
    /portForward/NAMESPACE/POD[/UID]?port=...

and one path of our own, `/podDial/NAMESPACE/POD?port=...` with `Upgrade: tcp`: a connection to the
pod's address, for an apiserver whose machine has no way into the pod network.

Owns: what is answered before the protocol changes (404 and 400 in words) and after it (the status
of the command, the error of a port). The protocols are `k8slite.streaming`'s, what runs is the
runtime's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from k8slite.api.meta import Obj
from k8slite.kubelet.pods import Observed, find_container
from k8slite.kubelet.runtime.interface import ContainerState, Runtime, RuntimeFailure
from k8slite.kubelet.runtime.ports import connect
from k8slite.kubelet.serving.http_server import Answer, Request, Takeover
from k8slite.streaming import command, portforward
from k8slite.streaming.bytes import ByteStream, relay, why
from k8slite.streaming.command import Command, Wants
from k8slite.streaming.status import error_status, exit_status, success_status
from k8slite.streaming.upgrade import UpgradeRefused, is_upgrade, is_websocket

__all__ = ["Streaming"]

log = logging.getLogger(__name__)

PORTS_MAX = 64
DIAL_SECONDS = 10.0
_TRUE = frozenset(("1", "true", "t", "T", "TRUE", "True"))


class Refused(Exception):
    """Answered before the protocol changes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@attrs.frozen
class Streaming:
    """Answers the three paths. `pods` are those of this node."""

    runtime: Runtime
    pods: Callable[[], Sequence[Obj]]
    idle_seconds: float
    node_ip: str = "127.0.0.1"

    async def handle(self, request: Request) -> Answer | Takeover | None:
        """None: the path is none of ours."""
        parts = request.path.strip("/").split("/")
        try:
            if parts[0] in ("exec", "attach") and len(parts) in (4, 5):
                return await self._command(request, parts)
            if parts[0] == "portForward" and len(parts) in (3, 4):
                pod = self._pod(*parts[1:3], uid=parts[3] if len(parts) == 4 else "")
                return await self._port_forward(request, pod)
            if parts[0] == "podDial" and len(parts) == 3:
                return await self._dial(request, self._pod(*parts[1:3], uid=""))
        except Refused as refused:
            return Answer(refused.status, f"{refused.message}\n".encode())
        except UpgradeRefused as refused:
            return Answer(refused.status, f"{refused.message}\n".encode())
        return None

    async def _command(self, request: Request, parts: list[str]) -> Takeover:
        wants = _wants(request)
        try:
            pod = self._pod(*parts[1:3], uid=parts[3] if len(parts) == 5 else "")
            container_id = await self._container(pod, parts[-1])
            if parts[0] == "exec":
                return self._exec(request, wants, container_id)
            return self._attach(request, wants, pod, parts[-1], container_id)
        except Refused as refused:
            if not is_websocket(request.headers):
                raise
            # Clients show what comes by the error channel, but not the text of a failed upgrade.
            status = error_status(f"unable to upgrade connection: {refused.message}")

        async def body(client: Command) -> None:
            await client.finish(status)

        return self._serve(request, wants, body)

    def _pod(self, namespace: str, name: str, *, uid: str) -> Obj:
        for pod in self.pods():
            meta = pod["metadata"]
            if (meta["namespace"], meta["name"]) == (namespace, name) and uid in ("", meta["uid"]):
                return pod
        raise Refused(404, "pod does not exist")

    async def _container(self, pod: Obj, name: str) -> str:
        """The id of a running container. Raises Refused."""
        known = find_container(pod, name)
        if known is None:
            raise Refused(404, f"container {name} not found in pod {pod['metadata']['name']}")
        found = await self.runtime.list_containers(pod["metadata"]["uid"])
        status = Observed(containers=tuple(found)).latest(name)
        if status is None:
            raise Refused(404, f'container not found ("{name}")')
        if status.state is not ContainerState.RUNNING:
            raise Refused(404, f'container not found ("{name}"): it is {status.state.value}')
        return status.id

    def _exec(self, request: Request, wants: Wants, container_id: str) -> Takeover:
        words = request.all("command")
        if not words:
            raise Refused(400, "you must specify at least one command for the container")

        async def body(client: Command) -> None:
            try:
                code = await self.runtime.exec(
                    container_id, words, client, stdin=wants.stdin, tty=wants.tty
                )
                status = exit_status(code)
            except (RuntimeFailure, OSError) as error:
                status = error_status(f"error executing command in container: {error}")
            await client.finish(status)

        return self._serve(request, wants, body)

    def _attach(
        self, request: Request, wants: Wants, pod: Obj, name: str, container_id: str
    ) -> Takeover:
        container = find_container(pod, name) or {}
        stdin = wants.stdin and bool(container.get("stdin"))

        async def body(client: Command) -> None:
            try:
                await self.runtime.attach(container_id, client, stdin=stdin)
                status = success_status()
            except (RuntimeFailure, OSError) as error:
                status = error_status(f"error attaching to container: {error}")
            await client.finish(status)

        return self._serve(request, wants, body)

    def _serve(self, request: Request, wants: Wants, body: Any) -> Takeover:
        agreed = command.negotiate(request.headers)

        async def run(stream: ByteStream) -> None:
            await command.serve_command(
                stream, request.headers, agreed.protocol, wants, self.idle_seconds, body
            )

        return Takeover(agreed.headers, run)

    async def _port_forward(self, request: Request, pod: Obj) -> Takeover:
        ports = _ports(request)
        agreed = portforward.negotiate(request.headers)
        if portforward.needs_ports(request.headers, agreed.protocol) and not ports:
            raise Refused(400, 'query parameter "port" is required')
        uid = pod["metadata"]["uid"]

        async def connect(port: int) -> trio.abc.Stream:
            sandboxes = await self.runtime.list_pod_sandbox(uid)
            sandbox = Observed(sandboxes=tuple(sandboxes)).sandbox
            if sandbox is None:
                raise OSError(f"pod {pod['metadata']['name']} has no running sandbox")
            try:
                return await self.runtime.port_forward(sandbox.id, port)
            except RuntimeFailure as error:
                raise OSError(str(error)) from None

        async def run(stream: ByteStream) -> None:
            await portforward.serve_port_forward(
                stream, request.headers, agreed.protocol, ports, self.idle_seconds, connect
            )

        return Takeover(agreed.headers, run)

    async def _dial(self, request: Request, pod: Obj) -> Takeover:
        ports = _ports(request)
        if len(ports) != 1 or not is_upgrade(request.headers):
            raise Refused(400, "one port and Upgrade: tcp are required")
        sandboxes = await self.runtime.list_pod_sandbox(pod["metadata"]["uid"])
        sandbox = Observed(sandboxes=tuple(sandboxes)).sandbox
        if sandbox is None or not (sandbox.ip or sandbox.host_network):
            raise Refused(502, f"pod {pod['metadata']['name']} has no address")
        try:
            with trio.fail_after(DIAL_SECONDS):
                target = await connect(sandbox.ip or self.node_ip, ports[0])
        except (OSError, trio.TooSlowError) as error:
            raise Refused(502, why(error)) from None

        async def run(stream: ByteStream) -> None:
            async with target:
                await relay(stream, ByteStream.over(target))

        async def abandon() -> None:
            await target.aclose()

        headers = ((b"Connection", b"Upgrade"), (b"Upgrade", b"tcp"))
        return Takeover(headers, run, abandon)


def _wants(request: Request) -> Wants:
    """Raises Refused when nothing is asked for, as Kubernetes does."""

    def asked(name: str) -> bool:
        return request.query.get(name, "") in _TRUE

    tty = asked("tty")
    wants = Wants(asked("input"), asked("output"), asked("error") and not tty, tty)
    if not (wants.stdin or wants.stdout or wants.stderr):
        raise Refused(400, "you must specify at least 1 of stdin, stdout, stderr")
    return wants


def _ports(request: Request) -> tuple[int, ...]:
    """Raises Refused."""
    words = [word for value in request.all("port") for word in value.split(",") if word]
    if len(words) > PORTS_MAX:
        raise Refused(400, f"at most {PORTS_MAX} ports can be forwarded by one connection")
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 5 and 0 < int(word) < 65536):
            raise Refused(400, f'unable to parse "{word}" as a port')
    return tuple(int(word) for word in words)
