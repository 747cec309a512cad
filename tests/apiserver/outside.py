"""An HTTPS server beside the apiserver, for what it asks others: users, rights, keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import trio
import yaml

from k8slite.apiserver.http.connection import serve_connection
from k8slite.apiserver.http.message import Request, Response
from tests.certificates import Authority


class Outside:
    """What it answers under each path: an object made of the request's body, or of nothing."""

    def __init__(self, folder: Path, port: int, ca: Path) -> None:
        self.folder = folder
        self.url = f"https://127.0.0.1:{port}"
        self.ca = ca.read_text()
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.asked: list[Any] = []

    async def handle(self, request: Request) -> Response:
        body = orjson.loads(request.body) if request.body else None
        self.asked.append(body)
        answer = self.answers.get(request.path)
        if answer is None:
            return Response(500, b"")
        return Response(200, orjson.dumps(answer(body)))

    def kubeconfig(self, path: str) -> str:
        """A file that leads to that path."""
        file = self.folder / f"{path.strip('/')}.kubeconfig"
        (self.folder / "outside-ca.pem").write_text(self.ca)
        cluster = {"server": f"{self.url}{path}", "certificate-authority": "outside-ca.pem"}
        document = {
            "clusters": [{"name": "outside", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": "mine"}}],
            "contexts": [{"name": "it", "context": {"cluster": "outside", "user": "me"}}],
            "current-context": "it",
        }
        file.write_text(yaml.safe_dump(document))
        return str(file)


@asynccontextmanager
async def open_outside(folder: Path) -> AsyncIterator[Outside]:
    authority = Authority(folder / "outside")
    context = authority.tls("outside", require_client=False).server
    found: list[Outside] = []

    async def serve(stream: trio.abc.Stream) -> None:
        await serve_connection(stream, found[0].handle, tls=context, body_bytes_max=1 << 20)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        found.append(Outside(folder, port, authority.path))
        yield found[0]
        nursery.cancel_scope.cancel()
