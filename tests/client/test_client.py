"""The REST client against a server that answers, dies, hangs and lies."""

from __future__ import annotations

import orjson
import pytest
import trio

from k8slite.api.kinds import DEPLOYMENTS, NODES, PODS
from k8slite.api.status import ApiError, conflict
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.errors import UnknownOutcome, Unreachable
from raftkv.host import Address
from tests.client.world import (
    DROP,
    HANG,
    MemoryHost,
    Reply,
    Request,
    json_reply,
    open_fake_server,
)

A, B = Address("10.0.0.1", 6443), Address("10.0.0.2", 6443)
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}}


async def answer_pod(request: Request) -> Reply:
    return json_reply(POD)


async def test_requests_have_the_paths_and_bodies_of_the_api() -> None:
    host = MemoryHost()
    async with open_fake_server(host.net, A, answer_pod) as seen:
        async with open_client(ClientConfig(endpoints=(A,), token="t"), host) as client:
            await client.get(PODS, "p", "n")
            await client.get(NODES, "one")
            await client.create(DEPLOYMENTS, {"metadata": {"name": "d", "namespace": "n"}})
            await client.create(PODS, {}, namespace="n", name="p", subresource="binding")
            await client.update(PODS, POD, subresource="status")
            await client.patch(PODS, "p", "n", {"a": 1}, type="strategic")
            await client.delete(PODS, "p", "n", grace_period_seconds=0, uid="u")
            await client.delete_collection(PODS, "n", labels="a=b")
    assert [(r.method, r.target) for r in seen] == [
        ("GET", "/api/v1/namespaces/n/pods/p"),
        ("GET", "/api/v1/nodes/one"),
        ("POST", "/apis/apps/v1/namespaces/n/deployments"),
        ("POST", "/api/v1/namespaces/n/pods/p/binding"),
        ("PUT", "/api/v1/namespaces/n/pods/p/status"),
        ("PATCH", "/api/v1/namespaces/n/pods/p"),
        ("DELETE", "/api/v1/namespaces/n/pods/p"),
        ("DELETE", "/api/v1/namespaces/n/pods?labelSelector=a%3Db"),
    ]
    assert seen[0].headers["authorization"] == "Bearer t"
    assert seen[5].headers["content-type"] == "application/strategic-merge-patch+json"
    assert orjson.loads(seen[6].body) == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"},
    }
    assert host.net.opened == 1, "one connection serves requests in turn"


async def test_list_fills_in_what_items_share() -> None:
    async def handler(request: Request) -> Reply:
        metadata = {"resourceVersion": "7", "continue": "next"}
        return json_reply({"metadata": metadata, "items": [{"metadata": {"name": "x"}}]})

    host = MemoryHost()
    async with open_fake_server(host.net, A, handler) as seen:
        async with open_client(ClientConfig(endpoints=(A,)), host) as client:
            page = await client.list(PODS, limit=1, fields="spec.nodeName=a")
    assert page.items == [{"metadata": {"name": "x"}, "apiVersion": "v1", "kind": "Pod"}]
    assert (page.resource_version, page.continue_) == ("7", "next")
    assert seen[0].target == "/api/v1/pods?fieldSelector=spec.nodeName%3Da&limit=1"


async def test_an_error_status_is_an_api_error() -> None:
    async def handler(request: Request) -> Reply:
        return json_reply(conflict(PODS, "p").to_status(), 409)

    host = MemoryHost()
    async with open_fake_server(host.net, A, handler):
        async with open_client(ClientConfig(endpoints=(A,)), host) as client:
            with pytest.raises(ApiError) as caught:
                await client.update(PODS, POD)
    assert (caught.value.code, caught.value.reason) == (409, "Conflict")


async def test_an_error_without_a_status_object_is_an_api_error_too() -> None:
    async def handler(request: Request) -> Reply:
        return Reply(404, b"404 page not found\n")

    host = MemoryHost()
    async with open_fake_server(host.net, A, handler):
        async with open_client(ClientConfig(endpoints=(A,)), host) as client:
            with pytest.raises(ApiError, match="404 page not found") as caught:
                await client.get(PODS, "p", "n")
    assert (caught.value.code, caught.value.reason) == (404, "NotFound")


@pytest.mark.parametrize("seed", range(4))
async def test_reads_and_writes_go_to_the_endpoint_that_lives(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    host = MemoryHost(seed)
    async with open_fake_server(host.net, B, answer_pod) as seen:
        async with open_client(ClientConfig(endpoints=(A, B)), host) as client:
            assert await client.get(PODS, "p", "n") == POD
            await client.update(PODS, POD)
    assert len(seen) == 2


async def test_nobody_there_is_unreachable(autojump_clock: trio.testing.MockClock) -> None:
    host = MemoryHost()
    async with open_client(ClientConfig(endpoints=(A, B)), host) as client:
        with pytest.raises(Unreachable, match=r"10\.0\.0\.1:6443.*nobody listens"):
            await client.update(PODS, POD)


@pytest.mark.parametrize("fault", [DROP, HANG])
async def test_a_write_whose_answer_is_lost_is_not_repeated(
    fault: Reply, autojump_clock: trio.testing.MockClock
) -> None:
    async def handler(request: Request) -> Reply:
        return fault

    host = MemoryHost()
    async with open_fake_server(host.net, A, handler) as seen:
        async with open_client(ClientConfig(endpoints=(A,)), host) as client:
            with pytest.raises(UnknownOutcome):
                await client.create(PODS, POD)
    assert len(seen) == 1


@pytest.mark.parametrize("fault", [DROP, HANG])
async def test_a_read_whose_answer_is_lost_is_asked_elsewhere(
    fault: Reply, autojump_clock: trio.testing.MockClock
) -> None:
    async def sick(request: Request) -> Reply:
        return fault

    host = MemoryHost()
    async with (
        open_fake_server(host.net, A, sick) as at_sick,
        open_fake_server(host.net, B, answer_pod),
        open_client(ClientConfig(endpoints=(A, B)), host) as client,
    ):
        for _ in range(5):
            assert await client.get(PODS, "p", "n") == POD
    assert len(at_sick) <= 1, "the sick endpoint is avoided after its first failure"


async def test_a_server_that_is_busy_is_asked_again_after_its_own_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    times = []

    async def handler(request: Request) -> Reply:
        times.append(trio.current_time())
        if len(times) == 1:
            return Reply(429, b"{}", (("Retry-After", "2"),))
        return json_reply(POD)

    host = MemoryHost()
    async with open_fake_server(host.net, A, handler):
        async with open_client(ClientConfig(endpoints=(A,)), host) as client:
            assert await client.create(PODS, POD) == POD
    assert times[1] - times[0] == 2


async def test_an_endpoint_silent_until_the_callers_deadline_is_avoided(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def silent(request: Request) -> Reply:
        return HANG

    host = MemoryHost()
    async with (
        open_fake_server(host.net, A, silent) as at_silent,
        open_fake_server(host.net, B, answer_pod),
        open_client(ClientConfig(endpoints=(A, B)), host) as client,
    ):
        answers = 0
        for _ in range(4):
            with trio.move_on_after(5):
                await client.update(PODS, POD)
                answers += 1
    assert len(at_silent) <= 1
    assert answers >= 3


async def test_connections_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    busy = most = 0

    async def handler(request: Request) -> Reply:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await trio.sleep(1)
        busy -= 1
        return json_reply(POD)

    host = MemoryHost()
    config = ClientConfig(endpoints=(A,), connections_max=3)
    async with open_fake_server(host.net, A, handler), open_client(config, host) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.get, PODS, "p", "n")
    assert most == 3
    assert host.net.opened == 3


def event(event_type: str, version: int) -> bytes:
    metadata = {"name": "p", "namespace": "n", "resourceVersion": str(version)}
    obj = {"type": event_type, "object": {"metadata": metadata}}
    return orjson.dumps(obj) + b"\n"


@pytest.mark.parametrize("cut", [1, 7, 1000])
async def test_a_watch_gives_events_however_the_stream_is_cut(cut: int) -> None:
    data = event("ADDED", 1) + event("MODIFIED", 2) + event("BOOKMARK", 3)
    chunks = tuple(data[i : i + cut] for i in range(0, len(data), cut))

    async def handler(request: Request) -> Reply:
        return Reply(chunks=chunks)

    host = MemoryHost()
    async with open_fake_server(host.net, A, handler) as seen:
        async with open_client(ClientConfig(endpoints=(A,)), host) as client:
            async with client.watch(PODS, resource_version="0") as watch:
                got = [(t, o["metadata"]["resourceVersion"]) async for t, o in watch]
    assert got == [("ADDED", "1"), ("MODIFIED", "2"), ("BOOKMARK", "3")]
    assert "watch=true" in seen[0].target
    assert "allowWatchBookmarks=true" in seen[0].target


async def test_a_watch_that_breaks_is_unreachable_and_one_that_errs_an_api_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    replies = [
        Reply(chunks=(event("ADDED", 1),), then="close"),
        Reply(chunks=(event("ADDED", 1),), then="hang"),
        Reply(chunks=(orjson.dumps({"type": "ERROR", "object": gone}) + b"\n",)),
        Reply(410, orjson.dumps(gone)),
    ]

    async def handler(request: Request) -> Reply:
        return replies.pop(0)

    host = MemoryHost()
    outcomes = []
    async with open_fake_server(host.net, A, handler):
        async with open_client(ClientConfig(endpoints=(A,)), host) as client:
            while replies:
                try:
                    async with client.watch(PODS) as watch:
                        async for _ in watch:
                            pass
                except (Unreachable, ApiError) as error:
                    outcomes.append(type(error))
    assert outcomes == [Unreachable, Unreachable, ApiError, ApiError]


async def test_a_followed_log_is_given_as_it_arrives() -> None:
    async def handler(request: Request) -> Reply:
        return Reply(chunks=(b"one\n", b"two\n"))

    host = MemoryHost()
    async with open_fake_server(host.net, A, handler):
        async with open_client(ClientConfig(endpoints=(A,)), host) as client:
            async with client.stream("GET", "/api/v1/namespaces/n/pods/p/log?follow=true") as log:
                text = b""
                while data := await log.receive_some():
                    text += data
    assert text == b"one\ntwo\n"
