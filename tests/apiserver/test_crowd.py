"""Idle and dawdling clients, many of them, against a real server: nobody is kept out."""

from __future__ import annotations

import trio

from tests.apiserver.support import open_session, open_test_apiserver


async def test_a_thousand_idle_connections_keep_nobody_out() -> None:
    async with open_test_apiserver(connections_max=50) as server:
        idle = []
        for i in range(1000):
            stream = await trio.open_tcp_stream(*server.address)
            if i % 2:
                await stream.send_all(b"GET /api/v1/pods HTTP/1.1\r\nX-Slow: ")
            idle.append(stream)
            if len(idle) > 200:  # what the server has closed need not be held here
                await idle.pop(0).aclose()
        async with open_session(server) as session:
            for _ in range(3):
                assert (await session.call("GET", "/api/v1/namespaces/default"))[0] == 200
        assert server.core.crowd.open <= 60
        assert await idle[0].receive_some(10) == b""
        for stream in idle:
            await trio.aclose_forcefully(stream)
