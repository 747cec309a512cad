"""What the kubelet answers over HTTPS: `/containerLogs/...`, `/pods`, `/healthz`; by way of `stats`
`/stats/summary` and `/metrics/...`, by way of `streaming` `/exec/...`, `/attach/...`,
`/portForward/...`.

With TLS, everything but `/healthz` needs a certificate of our authority or a token, and the
apiserver's word that its user may (see `authorization`).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from k8slite.api.meta import Obj, format_micro_time
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.pods import Observed, find_container
from k8slite.kubelet.runtime.interface import ContainerState, ContainerStatus, Runtime
from k8slite.kubelet.serving.authorization import Gate, Refusal
from k8slite.kubelet.serving.http_server import Answer, Request, Takeover
from k8slite.kubelet.serving.logs import LogOptions, follow_log
from k8slite.kubelet.serving.streaming import Streaming
from k8slite.kubelet.stats.server import Stats
from raftkv.host import Host


@attrs.frozen
class Server:
    """The handler of `http_server.serve`."""

    config: KubeletConfig
    host: Host
    runtime: Runtime
    pods: Callable[[], Sequence[Obj]]
    gate: Gate | None
    """None: everybody may (without TLS nobody could be told from another)."""
    stats: Stats

    async def handle(self, request: Request) -> Answer | Takeover:
        if request.path in ("/healthz", "/healthz/ping", "/healthz/syncloop"):
            return Answer(body=b"ok")
        if self.gate is not None:
            try:
                await self.gate.require(request)
            except Refusal as refusal:
                return Answer(refusal.status, refusal.message.encode())
        config = self.config
        streaming = Streaming(
            self.runtime, self.pods, config.streaming_idle_seconds, config.node_ip
        )
        if request.method in ("GET", "POST"):
            answer = await streaming.handle(request)
            if answer is not None:
                return answer
        if request.method != "GET":
            return Answer(405, b"Method Not Allowed")
        if request.path == "/pods":
            listing = {"kind": "PodList", "apiVersion": "v1", "metadata": {}}
            body = orjson.dumps({**listing, "items": [*self.pods()]})
            return Answer(body=body, content_type="application/json")
        told = await self.stats.answer(request)
        if told is not None:
            return told
        parts = request.path.strip("/").split("/")
        if parts[0] == "containerLogs" and len(parts) == 4:
            return await self._logs(parts[1], parts[2], parts[3], request.query)
        return Answer(404, b"404 page not found\n")

    async def _logs(
        self, namespace: str, name: str, container: str, query: Mapping[str, str]
    ) -> Answer:
        pod = next(
            (
                p
                for p in self.pods()
                if (p["metadata"]["namespace"], p["metadata"]["name"]) == (namespace, name)
            ),
            None,
        )
        if pod is None:
            return Answer(404, f'pod "{name}" does not exist\n'.encode())
        if find_container(pod, container) is None:
            text = f'container "{container}" not found in pod "{name}"\n'
            return Answer(404, text.encode())
        try:
            options = self._options(query)
        except ValueError as error:
            return Answer(400, f"{error}\n".encode())
        uid = pod["metadata"]["uid"]
        observed = Observed(containers=tuple(await self.runtime.list_containers(uid)))
        status = observed.latest(container)
        if query.get("previous") == "true":
            status = observed.before(status) if status is not None else None
            if status is None:
                text = f'previous terminated container "{container}" in pod "{name}" not found\n'
                return Answer(400, text.encode())
        if status is None or status.state is ContainerState.CREATED:
            text = (
                f'container "{container}" in pod "{name}" is waiting to start: '
                f"{self._why(pod, container)}\n"
            )
            return Answer(400, text.encode())
        path = Path(status.log_path)
        if not status.log_path or not os.path.exists(status.log_path):  # noqa: ASYNC240
            return Answer(200, b"")
        return Answer(body=follow_log(path, options, self._is_running(status)))

    def _is_running(self, status: ContainerStatus) -> Callable[[], Awaitable[bool]]:
        async def is_running() -> bool:
            found = await self.runtime.list_containers(status.pod_uid)
            return any(c.id == status.id and c.state is ContainerState.RUNNING for c in found)

        return is_running

    def _why(self, pod: Obj, container: str) -> str:
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            if status["name"] == container:
                waiting: dict[str, Any] = status.get("state", {}).get("waiting") or {}
                return str(waiting.get("reason", "ContainerCreating"))
        return "ContainerCreating"

    def _options(self, query: Mapping[str, str]) -> LogOptions:
        def number(key: str) -> int | None:
            text = query.get(key)
            if text is None or text == "":
                return None
            if not text.isdigit():
                raise ValueError(f"{key} must be a whole number, not {text!r}")
            return int(text)

        since = query.get("sinceTime", "")
        seconds = number("sinceSeconds")
        if seconds is not None:
            since = format_micro_time(self.host.now() - seconds)
        return LogOptions(
            follow=query.get("follow") == "true",
            tail_lines=number("tailLines"),
            since=since,
            timestamps=query.get("timestamps") == "true",
            limit_bytes=number("limitBytes"),
            stream=query.get("stream") or "All",
        )
