"""TLS: certificates name users and groups; without one a client is anonymous."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import trio

from k8slite.apiserver import open_apiserver
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.apiserver.support import Answer, encode_request, make_config, open_test_apiserver
from tests.certificates import Authority


async def test_certificates_name_users(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.tls("apiserver", require_client=False).server
    async with open_test_apiserver_over(server) as address:
        kubelet = authority.tls("system:node:n1", "system:nodes").client
        anonymous = ssl.create_default_context(cafile=str(authority.path))
        for context, user, groups in (
            (kubelet, "system:node:n1", ["system:nodes", "system:authenticated"]),
            (anonymous, "system:anonymous", ["system:unauthenticated"]),
        ):
            status, answer = await who_am_i(address, context)
            if user == "system:anonymous":
                assert status == 403
                assert user in answer["message"]
            else:
                assert answer["status"]["userInfo"] == {"username": user, "groups": groups}


@asynccontextmanager
async def open_test_apiserver_over(context: ssl.SSLContext) -> AsyncIterator[Address]:
    """The address of a server that speaks TLS; the usual fixture's own client does not."""
    async with open_apiserver(make_config(tls=context), OsHost("test")) as server:
        yield server.address


async def who_am_i(address: Address, context: ssl.SSLContext) -> tuple[int, dict[str, Any]]:
    stream = await trio.open_ssl_over_tcp_stream(
        address[0], address[1], ssl_context=context, https_compatible=True
    )
    async with stream:
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        await stream.send_all(encode_request("POST", path, {}, "application/json", "", ""))
        answer = Answer()
        while not answer.done:
            answer.feed(bytes(await stream.receive_some(65536)))
        return answer.status, orjson.loads(answer.body)


async def test_who_speaks_no_tls_is_left() -> None:
    async with open_test_apiserver() as server:
        stream = await trio.open_tcp_stream(*server.address)
        async with stream:
            await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            received = bytes(await stream.receive_some(1000))
            assert received.startswith(b"HTTP/1.1 400 ")
