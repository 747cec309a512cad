"""A registry for tests, in a thread: just enough of the distribution specification, and its faults.

`faults` are names of what it does wrong: "cut" ends each connection in the middle of a blob once,
"ranges" ignores ranges, "redirect" keeps blobs elsewhere, "damage" changes a byte of each layer,
"busy" answers 503 to the first request for each path.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from tests.kubelet.archives import config_of, digest

TOKEN = "a-token-for-one-repository"


@attrs.define
class FakeRegistry:
    """`manifests` by "REPOSITORY/REFERENCE", `blobs` by digest; `asked` is every request line."""

    auth: str = ""
    user: str = "ann"
    password: str = "secret"
    faults: frozenset[str] = frozenset()
    manifests: dict[str, bytes] = attrs.field(factory=dict)
    blobs: dict[str, bytes] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)
    seen: set[str] = attrs.field(factory=set)
    port: int = 0

    @property
    def domain(self) -> str:
        return f"127.0.0.1:{self.port}"

    def push(self, repository: str, tag: str, layers: list[bytes], **config: Any) -> str:
        """An image of plain layers; the digest of its manifest."""
        document = config_of(layers, **config)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "config": {"digest": digest(document), "size": len(document)},
                "layers": [{"digest": digest(each), "size": len(each)} for each in layers],
            }
        ).encode()
        self.blobs.update({digest(each): each for each in (document, *layers)})
        return self.put(repository, tag, manifest)

    def push_index(self, repository: str, tag: str, platforms: dict[str, str]) -> str:
        """A list of manifests by architecture."""
        entries = [
            {"digest": each, "platform": {"architecture": name, "os": "linux"}}
            for name, each in platforms.items()
        ]
        body = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        return self.put(repository, tag, body)

    def put(self, repository: str, tag: str, manifest: bytes) -> str:
        for reference in (tag, digest(manifest)):
            self.manifests[f"{repository}/{reference}"] = manifest
        return digest(manifest)

    def count(self, part: str) -> int:
        return sum(part in line for line in self.asked)


def _handler(registry: FakeRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            registry.asked.append(f"POST {self.path} {body}")
            fields = parse_qs(body)
            if fields.get("refresh_token") == [registry.password]:
                self.answer(200, json.dumps({"access_token": TOKEN}).encode())
            else:
                self.refuse(401, "UNAUTHORIZED", "who are you")

        def do_GET(self) -> None:
            registry.asked.append(f"GET {self.path}")
            path = urlsplit(self.path).path
            if path == "/token":
                self.token()
            elif path.startswith("/elsewhere/"):
                assert "Authorization" not in self.headers or registry.auth == ""
                self.blob(path.removeprefix("/elsewhere/"))
            elif not self.is_let_in():
                scope = f'scope="repository:{path.split("/")[2]}:pull"'
                how = {
                    "basic": 'Basic realm="here"',
                    "bearer": f'Bearer realm="http://{registry.domain}/token",{scope}',
                }
                headers = {"WWW-Authenticate": how[registry.auth]}
                self.refuse(401, "UNAUTHORIZED", "authentication required", headers)
            elif "busy" in registry.faults and path not in registry.seen:
                registry.seen.add(path)
                self.refuse(503, "UNAVAILABLE", "later")
            else:
                self.content(path)

        def content(self, path: str) -> None:
            repository, kind, reference = path.removeprefix("/v2/").rsplit("/", 2)
            if kind == "manifests":
                body = registry.manifests.get(f"{repository}/{reference}")
                if body is None:
                    self.refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
                else:
                    self.answer(200, body, {"Docker-Content-Digest": digest(body)})
            elif "redirect" in registry.faults:
                where = f"http://localhost:{registry.port}/elsewhere/{reference}"
                self.answer(307, b"", {"Location": where})
            else:
                self.blob(reference)

        def blob(self, reference: str) -> None:
            body = registry.blobs.get(reference)
            if body is None:
                self.refuse(404, "BLOB_UNKNOWN", "blob unknown")
                return
            if "damage" in registry.faults and body[:1] != b"{":
                body = body[:-1] + bytes([body[-1] ^ 1])
            start = 0
            if "Range" in self.headers and "ranges" not in registry.faults:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if "cut" in registry.faults and reference not in registry.seen:
                registry.seen.add(reference)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self.answer(206 if start else 200, body[start:])

        def token(self) -> None:
            own = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
            if self.headers.get("Authorization") == f"Basic {own}":
                self.answer(200, json.dumps({"token": TOKEN}).encode())
            else:
                self.answer(200, json.dumps({"token": "of-nobody"}).encode())

        def is_let_in(self) -> bool:
            given = self.headers.get("Authorization", "")
            own = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
            wanted = {"": given, "basic": f"Basic {own}", "bearer": f"Bearer {TOKEN}"}
            return given == wanted[registry.auth]

        def refuse(
            self, status: int, code: str, message: str, headers: dict[str, str] | None = None
        ) -> None:
            body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
            self.answer(status, body, headers)

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextlib.contextmanager
def open_registry(**how: Any) -> Iterator[FakeRegistry]:
    registry = FakeRegistry(**how)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(registry))
    server.daemon_threads = True
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
