"""Lists and watches: which revision they are of, and that a watch misses nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from k8slite.apiserver import Apiserver
from k8slite.apiserver.store.memory import MemoryStore
from tests.apiserver.support import (
    ADMIN,
    Session,
    config_map,
    encode_request,
    open_session,
    open_test_apiserver,
    open_watch,
    pod,
)

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def labelled(name: str, **labels: str) -> dict[str, Any]:
    body = config_map(name)
    body["metadata"]["labels"] = labels
    return body


async def test_a_watch_goes_on_where_the_list_ended(server: Apiserver, session: Session) -> None:
    await session.call("POST", MAPS, config_map("a"))
    _, found = await session.call("GET", MAPS)
    version = found["metadata"]["resourceVersion"]
    await session.call("POST", MAPS, config_map("b"))
    async with open_watch(server, f"{MAPS}?watch=1&resourceVersion={version}") as watch:
        await session.call("PATCH", f"{MAPS}/a", {"data": {"k": "v"}}, content_type=MERGE)
        await session.call("DELETE", f"{MAPS}/b")
        assert [await watch.brief() for _ in range(3)] == [
            ("ADDED", "b"),
            ("MODIFIED", "a"),
            ("DELETED", "b"),
        ]


async def test_a_watch_without_version_begins_with_what_is_there(
    server: Apiserver, session: Session
) -> None:
    await session.call("POST", MAPS, config_map("a"))
    for query in ("watch=1", "watch=true&resourceVersion=0"):
        async with open_watch(server, f"{MAPS}?{query}") as watch:
            assert await watch.brief() == ("ADDED", "a")


async def test_leaving_a_selection_is_a_deletion(server: Apiserver, session: Session) -> None:
    async with open_watch(server, f"{MAPS}?watch=1&labelSelector=x%3Dy") as watch:
        await session.call("POST", MAPS, labelled("a", x="y"))
        await session.call("POST", MAPS, labelled("b", x="z"))
        for labels in ({"x": "z"}, {"x": "y"}):
            patch = {"metadata": {"labels": labels}}
            await session.call("PATCH", f"{MAPS}/a", patch, content_type=MERGE)
        first = [await watch.next() for _ in range(3)]
        assert [e["type"] for e in first] == ["ADDED", "DELETED", "ADDED"]
        assert first[1]["object"]["metadata"]["labels"] == {"x": "y"}


async def test_pods_of_one_node(server: Apiserver, session: Session) -> None:
    async with open_watch(server, "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1") as watch:
        for name, node in (("p", "n1"), ("q", "n2")):
            await session.call("POST", PODS, pod(name))
            binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
            await session.call("POST", f"{PODS}/{name}/binding", binding)
        await session.call("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
        assert await watch.brief() == ("ADDED", "p")
        assert await watch.brief() == ("DELETED", "p")


async def test_watch_list_ends_with_a_marked_bookmark(server: Apiserver, session: Session) -> None:
    await session.call("POST", MAPS, config_map("a"))
    query = (
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    )
    async with open_watch(server, f"{MAPS}?{query}") as watch:
        assert await watch.brief() == ("ADDED", "a")
        mark = await watch.next()
        assert mark["type"] == "BOOKMARK"
        metadata = mark["object"]["metadata"]
        assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
        await session.call("POST", MAPS, config_map("b"))
        later = await watch.next()
        assert int(later["object"]["metadata"]["resourceVersion"]) > int(
            metadata["resourceVersion"]
        )


async def test_idle_watches_get_bookmarks(autojump_clock: trio.testing.MockClock) -> None:
    """Virtual time and a store in memory: only the minute between bookmarks passes."""
    from k8slite.apiserver.mirror import Mirror
    from k8slite.apiserver.watch_cache import Subscription

    store = MemoryStore()
    mirror = Mirror(store, history_events=10, store_seconds=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await mirror.synced.wait()
        cache = mirror.raw_cache("", "configmaps")
        subscription = Subscription(mirror.waker, "", "", None, 10, bookmarks=True)
        cache.add(subscription)
        cache.bookmark(7)
        assert await subscription.take() == []
        assert subscription.bookmark_due == 7
        nursery.cancel_scope.cancel()


async def test_timeouts_end_a_watch_cleanly(server: Apiserver) -> None:
    async with open_watch(server, f"{MAPS}?watch=1&timeoutSeconds=1") as watch:
        with trio.fail_after(10), pytest.raises(EOFError):
            await watch.next()
        assert watch.ended


async def test_history_that_is_gone_is_told(session: Session) -> None:
    async with open_test_apiserver(watch_history_events=3) as server:
        async with open_session(server) as mine:
            for i in range(6):
                await mine.call("POST", MAPS, config_map(f"c{i}"))
        async with open_watch(server, f"{MAPS}?watch=1&resourceVersion=5") as watch:
            event = await watch.next()
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
            assert event["object"]["reason"] == "Expired"


async def test_a_stuck_client_is_let_go() -> None:
    """A client that reads nothing fills its socket, then its queue; then it is gone."""
    async with open_test_apiserver(watch_queue_events_max=20) as server:
        stream = await trio.open_tcp_stream(server.address.host, server.address.port)
        async with stream:
            await stream.send_all(
                encode_request("GET", f"{MAPS}?watch=1&resourceVersion=0", None, "", "", ADMIN)
            )
            cache = server.core.mirror.raw_cache("", "configmaps")
            value = b"x" * 200_000
            raw = b'{"metadata":{"name":"c"},"data":{"k":"%b"}}' % value
            with trio.fail_after(20):
                while not cache.watchers:
                    await trio.lowlevel.checkpoint()
                while cache.watchers:
                    revision = max(cache.changed_at, server.core.mirror.revision)
                    cache.apply("default/c", revision, raw)
                    await trio.lowlevel.checkpoint()


async def test_slow_watchers_are_closed_and_others_are_not() -> None:
    from k8slite.apiserver.watch_cache import KindCache, Subscription, Waker

    cache = KindCache("", "configmaps", 100)
    slow = Subscription(Waker(), "", "", None, 2, bookmarks=False)
    fast = Subscription(Waker(), "", "", None, 10, bookmarks=False)
    cache.add(slow)
    cache.add(fast)
    for i in range(1, 5):
        cache.apply(f"default/c{i}", i, b'{"metadata":{"name":"c"}}')
    assert slow.closed
    assert not fast.closed
    assert cache.watchers == 1
    assert len(await fast.take()) == 4


async def test_pages_are_of_one_revision(server: Apiserver, session: Session) -> None:
    for i in range(5):
        await session.call("POST", MAPS, config_map(f"c{i}"))
    _, first = await session.call("GET", f"{MAPS}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 3
    await session.call("DELETE", f"{MAPS}/c4")
    await session.call("POST", MAPS, config_map("c2x"))
    token = first["metadata"]["continue"]
    _, second = await session.call("GET", f"{MAPS}?limit=2&continue={token}")
    token = second["metadata"]["continue"]
    _, third = await session.call("GET", f"{MAPS}?limit=2&continue={token}")
    names = [item["metadata"]["name"] for page in (first, second, third) for item in page["items"]]
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    versions = {page["metadata"]["resourceVersion"] for page in (first, second, third)}
    assert len(versions) == 1
    await server.core.store.compact(server.core.mirror.revision)
    token = first["metadata"]["continue"]
    status, refused = await session.call("GET", f"{MAPS}?limit=2&continue={token}")
    assert (status, refused["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("limit=abc", 400, 'strconv.ParseInt: parsing "abc": invalid syntax'),
        ("resourceVersion=99999999", 504, "Timeout: Too large resource version: 99999999"),
        (
            "resourceVersionMatch=Exact",
            422,
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: '
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        ("labelSelector=a%20b%20c", 400, "unable to parse requirement: found 'b'"),
        ("continue=x", 400, "continue key is not valid"),
    ],
)
async def test_what_a_list_may_not_ask(
    session: Session, monkeypatch: pytest.MonkeyPatch, query: str, status: int, message: str
) -> None:
    monkeypatch.setattr("k8slite.apiserver.mirror.REVISION_WAIT_SECONDS", 0.05)
    got, refused = await session.call("GET", f"{MAPS}?{query}")
    assert got == status
    assert refused["message"].startswith(message)


async def test_older_states_can_be_read_exactly(session: Session) -> None:
    _, made = await session.call("POST", MAPS, config_map("a", k="old"))
    version = made["metadata"]["resourceVersion"]
    await session.call("PATCH", f"{MAPS}/a", {"data": {"k": "new"}}, content_type=MERGE)
    _, found = await session.call(
        "GET", f"{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"
    )
    assert [item["data"] for item in found["items"]] == [{"k": "old"}]
    assert found["metadata"]["resourceVersion"] == version


async def test_tables_and_metadata_only(server: Apiserver, session: Session) -> None:
    await session.call("POST", MAPS, config_map("a", k="v"))
    _, table = await session.call("GET", MAPS, accept=TABLE)
    assert (table["kind"], table["rows"][0]["cells"][:2]) == ("Table", ["a", 1])
    _, partial = await session.call(
        "GET", MAPS, accept="application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    )
    assert partial["kind"] == "PartialObjectMetadataList"
    assert "data" not in partial["items"][0]
    status, _ = await session.call("GET", MAPS, accept="text/html")
    assert status == 406
    async with open_watch(server, f"{MAPS}?watch=1", accept=TABLE) as watch:
        await session.call("POST", MAPS, config_map("b"))
        first, second = await watch.next(), await watch.next()
        assert first["object"]["columnDefinitions"][0]["name"] == "Name"
        assert second["object"]["columnDefinitions"] is None
        assert second["object"]["rows"][0]["cells"][0] == "b"


async def test_events_have_two_faces(session: Session) -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Because",
        "message": "so it is",
    }
    status, _ = await session.call("POST", "/api/v1/namespaces/default/events", event)
    assert status == 201
    path = "/apis/events.k8s.io/v1/namespaces/default/events"
    _, found = await session.call("GET", f"{path}/e")
    assert (found["note"], found["regarding"]["name"]) == ("so it is", "p")
    _, found = await session.call("GET", path)
    assert found["items"][0]["note"] == "so it is"
