"""A webhook server under real TLS, and what tells apiservers to ask it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import trio

from k8slite.apiserver.http.connection import serve_connection
from k8slite.apiserver.http.message import Request, Response
from tests.apiserver.support import Session
from tests.certificates import Authority

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
RULE = {
    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"],
}  # fmt: skip
Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Hooks:
    """A webhook server: one answer for each path; it remembers what it was asked."""

    def __init__(self, url: str, ca: str) -> None:
        self.url = url
        self.ca = ca
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def handle(self, request: Request) -> Response:
        review = orjson.loads(request.body)
        assert review["apiVersion"] in ("admission.k8s.io/v1", "apiextensions.k8s.io/v1")
        self.asked.append((request.path, review["request"]))
        if request.path == "/hang":
            await trio.sleep_forever()
        if request.path == "/nonsense":
            return Response(200, b"what?")
        if request.path == "/broken":
            return Response(500, b"")
        answer = self.answers[request.path](review["request"])
        if review["kind"] == "AdmissionReview":
            answer = {"allowed": True, **answer}
        if "patch" in answer:
            patch = base64.b64encode(orjson.dumps(answer["patch"])).decode()
            answer |= {"patch": patch, "patchType": "JSONPatch"}
        response = {**answer, "uid": review["request"]["uid"]}
        review = {**review, "response": response}
        del review["request"]
        return Response(200, orjson.dumps(review))

    def paths(self) -> list[str]:
        """Who was asked, in order; forgotten then."""
        paths = [path for path, _ in self.asked]
        self.asked.clear()
        return paths


@asynccontextmanager
async def open_hooks(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[Hooks]]]:
    found: list[Hooks] = []

    async def serve(stream: trio.abc.Stream) -> None:
        handle = found[0].handle
        await serve_connection(stream, handle, tls=context, body_bytes_max=1 << 20)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1], found
        nursery.cancel_scope.cancel()


async def register(
    session: Session, hooks: Hooks, kind: str, name: str, *paths: str, **changes: Any
) -> None:
    webhooks = []
    for path in paths:
        client = {"url": f"{hooks.url}/{path}", "caBundle": hooks.ca}
        webhooks.append(
            {
                "name": f"{path}.example.org", "clientConfig": client, "rules": [RULE],
                "sideEffects": "None", "admissionReviewVersions": ["v1"], **changes,
            }
        )  # fmt: skip
    body = {"metadata": {"name": name}, "webhooks": webhooks}
    status, answer = await session.call(
        "POST", f"{CONFIGURATIONS}/{kind}webhookconfigurations", body
    )
    assert status == 201, answer


async def create(session: Session, name: str = "m", query: str = "", **parts: Any) -> Any:
    body = {"metadata": {"name": name, **parts.pop("metadata", {})}, **parts}
    return await session.call("POST", MAPS + query, body)


@asynccontextmanager
async def serve_hooks(folder: Path) -> AsyncIterator[Hooks]:
    """A server that `127.0.0.1` and the Service `hook` in `default` may be names of."""
    authority = Authority(folder, names=("localhost", "hook.default.svc"))
    async with open_hooks(authority.tls("hook", require_client=False).server) as (port, found):
        ca = base64.b64encode(authority.path.read_bytes()).decode()
        found.append(Hooks(f"https://127.0.0.1:{port}", ca))
        yield found[0]
