"""Several apiservers over one store, and one that is cut off from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from k8slite.apiserver import Apiserver, StoreConfig
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.apiserver.support import (
    Session,
    config_map,
    open_session,
    open_test_apiserver,
    open_watch,
)

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


@asynccontextmanager
async def open_store_server(tmp_path: Path) -> AsyncIterator[StoreConfig]:
    from raftkv.server import ServerConfig, open_server

    free = Address("127.0.0.1", 0)
    config = ServerConfig(
        name="one",
        id=1,
        data_dir=str(tmp_path / "data"),
        client_address=free,
        peer_address=free,
        campaign_at_start=True,
        fsync=False,
    )
    async with open_server(config, OsHost("store")) as server:
        yield StoreConfig((server.client_address,))


@asynccontextmanager
async def open_pair(tmp_path: Path) -> AsyncIterator[tuple[Apiserver, Apiserver]]:
    async with (
        open_store_server(tmp_path) as store,
        open_test_apiserver(identity="one", store_config=store) as first,
        open_test_apiserver(identity="two", store_config=store) as second,
    ):
        yield first, second


async def test_what_one_wrote_the_other_reads_at_once(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (first, second):
        async with open_session(first) as one, open_session(second) as two:
            for i in range(20):
                writer, reader = (one, two) if i % 2 else (two, one)
                status, _ = await writer.call("POST", MAPS, config_map(f"c{i}", k="v"))
                assert status == 201
                status, _ = await reader.call("GET", f"{MAPS}/c{i}")
                assert status == 200
                _, found = await reader.call("GET", MAPS)
                assert len(found["items"]) == i + 1


async def test_a_watch_moves_from_one_server_to_the_other(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (first, second), open_session(first) as session:
        _, found = await session.call("GET", MAPS)
        version = found["metadata"]["resourceVersion"]
        seen: list[tuple[str, str]] = []
        for i in range(6):
            await session.call("POST", MAPS, config_map(f"c{i}"))
            server = first if i % 2 else second
            async with open_watch(server, f"{MAPS}?watch=1&resourceVersion={version}") as watch:
                event = await watch.next()
                seen.append((event["type"], event["object"]["metadata"]["name"]))
                version = event["object"]["metadata"]["resourceVersion"]
        assert seen == [("ADDED", f"c{i}") for i in range(6)]


async def test_concurrent_changes_through_both_all_arrive(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (first, second):
        async with open_session(first) as session:
            await session.call("POST", MAPS, config_map("a"))

        async def change(session: Session, name: str) -> None:
            for i in range(10):
                patch = {"data": {f"{name}{i}": "v"}}
                status, _ = await session.call("PATCH", f"{MAPS}/a", patch, content_type=MERGE)
                assert status == 200

        async with open_session(first) as one, open_session(second) as two:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(change, one, "x")
                nursery.start_soon(change, two, "y")
            _, got = await one.call("GET", f"{MAPS}/a")
            assert len(got["data"]) == 20


async def test_the_kubernetes_service_leads_to_both(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (first, second), open_session(first) as session:
        with trio.fail_after(10):
            while True:
                path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
                _, found = await session.call("GET", path)
                ports = {port["port"] for item in found["items"] for port in item["ports"]}
                if ports == {first.address.port, second.address.port}:
                    break
                await trio.sleep(0.05)
        _, leases = await session.call(
            "GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
        )
        assert [item["metadata"]["name"] for item in leases["items"]] == ["one", "two"]


async def test_cut_off_from_the_store_a_server_refuses_to_read_and_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        ready: list[StoreConfig] = []
        started = trio.Event()

        async def run_store() -> None:
            async with open_store_server(tmp_path) as config:
                ready.append(config)
                started.set()
                await stop.wait()

        nursery.start_soon(run_store)
        await started.wait()
        async with open_test_apiserver(
            store_config=ready[0], store_seconds=0.2, request_seconds=0.5
        ) as server:
            async with open_session(server) as session:
                await session.call("POST", MAPS, config_map("a"))
                stop.set()
                await trio.sleep(0.1)
                status, refused = await session.call("GET", f"{MAPS}/a")
                assert (status, refused["reason"]) == (503, "ServiceUnavailable")
                status, _ = await session.call("GET", f"{MAPS}/a?resourceVersion=0")
                assert status == 200
                status, _ = await session.call("POST", MAPS, config_map("b"))
                assert status in (503, 504)


async def test_what_was_granted_through_one_server_holds_at_the_other(tmp_path: Path) -> None:
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    async with open_pair(tmp_path) as (first, second):
        async with open_session(first) as one, open_session(second) as two:
            for i in range(10):
                await one.call("POST", accounts, {"metadata": {"name": f"r{i}"}})
                _, answer = await one.call("POST", f"{accounts}/r{i}/token", {"spec": {}})
                token = answer["status"]["token"]
                status, _ = await two.call("POST", review, {}, token=token)
                assert status == 201
