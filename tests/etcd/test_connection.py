"""gRPC over HTTP/2 as clients meet it: large messages, slow readers, nonsense, cancellation."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from raftkv.etcd.connection import Call, GrpcConnection
from raftkv.etcd.rpc import Method, frame
from raftkv.etcd.schema import MESSAGES
from tests.etcd.client import Refused
from tests.etcd.support import Fronts, in_thread, open_fronts

MEBIBYTE = 1024 * 1024


async def test_large_values_pass_both_ways(tmp_path: Path) -> None:
    async with open_fronts(tmp_path) as fronts:
        for number in range(20):
            await fronts.call("KV/Put", key=b"%02d" % number, value=bytes(MEBIBYTE))
        found = await fronts.call("KV/Range", key=b"\0", range_end=b"\0")  # more than one page
        assert [len(kv.value) for kv in found.kvs] == [MEBIBYTE] * 20
        assert (found.count, found.more) == (20, False)
        with pytest.raises(Refused) as large:
            await fronts.call("KV/Put", key=b"k", value=bytes(1536 * 1024))
        assert large.value.args == ("INVALID_ARGUMENT", "etcdserver: request is too large")
        with pytest.raises(Refused) as larger:
            await fronts.call("KV/Put", key=b"k", value=bytes(3 * MEBIBYTE))
        assert larger.value.args[0] == "RESOURCE_EXHAUSTED"


async def test_many_keys_come_whole_and_in_order(tmp_path: Path) -> None:
    async with open_fronts(tmp_path) as fronts:
        keys = [b"%04d" % number for number in range(2560)]
        for start in range(0, len(keys), 128):
            puts = [
                MESSAGES["RequestOp"](request_put=MESSAGES["PutRequest"](key=key, value=b"v"))
                for key in keys[start : start + 128]
            ]
            await fronts.call("KV/Txn", success=puts)
        found = await fronts.call("KV/Range", key=b"\0", range_end=b"\0")
        assert [kv.key for kv in found.kvs] == keys
        assert (found.count, found.more, found.header.revision) == (2560, False, 21)
        newest = await fronts.call(
            "KV/Range", key=b"\0", range_end=b"\0", sort_order=2, limit=2000, keys_only=True
        )
        assert [kv.key for kv in newest.kvs] == keys[:-2001:-1]
        assert (newest.count, newest.more) == (2560, True)


async def test_many_calls_at_once(tmp_path: Path) -> None:
    async with open_fronts(tmp_path, 3) as fronts:

        def put(number: int) -> int:
            client = fronts.client(1 + number % 3)
            revision: int = client.call("KV/Put", key=b"%d" % number).header.revision
            return revision

        def storm() -> list[int]:
            with ThreadPoolExecutor(32) as pool:
                return list(pool.map(put, range(300)))

        assert sorted(await in_thread(storm)) == list(range(2, 302))


async def test_slow_watcher_holds_up_nobody_and_loses_nothing(tmp_path: Path) -> None:
    async with open_fronts(tmp_path) as fronts:
        watch = fronts.client().channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES["WatchResponse"].FromString,
        )
        request = MESSAGES["WatchRequest"]()
        request.create_request.key = b"k"
        call = watch(iter([request]), wait_for_ready=True)
        assert (await in_thread(lambda: next(call))).created
        server = fronts.cluster.servers[1]
        for _ in range(200):  # 20 MB, of which nobody reads
            await fronts.call("KV/Put", key=b"k", value=bytes(100_000))
        while not server.status()["watches_behind"]:
            await trio.sleep(0.01)

        def read() -> list[int]:
            versions: list[int] = []
            while len(versions) < 200:
                versions += [event.kv.version for event in next(call).events]
            call.cancel()
            return versions

        assert await in_thread(read) == list(range(1, 201))
        while server.status()["watches"]:
            await trio.sleep(0.01)


async def test_fragments_of_what_is_large(tmp_path: Path) -> None:
    async with open_fronts(tmp_path) as fronts:
        for number in range(4):
            await fronts.call("KV/Put", key=b"%d" % number, value=bytes(MEBIBYTE))

        def watch() -> list[tuple[int, bool]]:
            stream = fronts.client().stream("Watch", "Watch", "WatchResponse")
            request = MESSAGES["WatchRequest"]()
            create = request.create_request
            create.key, create.range_end, create.start_revision = b"\0", b"\0", 1
            create.fragment = True
            stream.send(request)
            assert stream.receive().created
            found: list[tuple[int, bool]] = []
            while sum(count for count, _ in found) < 4:
                response = stream.receive()
                found.append((len(response.events), response.fragment))
            stream.close()
            return found

        assert await in_thread(watch) == [(1, True), (1, True), (1, True), (1, False)]


async def test_what_is_not_there(tmp_path: Path) -> None:
    async with open_fronts(tmp_path) as fronts:

        def ask(path: str) -> tuple[str, str]:
            call = fronts.client().channel.unary_unary(path)
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=10)
            return refused.value.code().name, refused.value.details()

        for path, text in (
            (
                "/etcdserverpb.Auth/AuthEnable",
                "unknown method AuthEnable for service etcdserverpb.Auth",
            ),
            ("/v3lockpb.Lock/Lock", "unknown service v3lockpb.Lock"),
        ):
            assert await in_thread(lambda path=path: ask(path)) == ("UNIMPLEMENTED", text)
        for method in ("Maintenance/Downgrade", "Cluster/MemberUpdate"):
            with pytest.raises(Refused) as refused:
                await fronts.call(method)
            assert refused.value.args[0] == "UNIMPLEMENTED"


async def test_health(tmp_path: Path) -> None:
    async with open_fronts(tmp_path, 3) as fronts:

        def check(service: str) -> int:
            call = fronts.client(1).channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=MESSAGES["HealthCheckResponse"].FromString,
            )
            status: int = call(MESSAGES["HealthCheckRequest"](service=service), timeout=10).status
            return status

        for service in ("", "etcdserverpb.KV"):
            assert await in_thread(lambda service=service: check(service)) == 1
        with pytest.raises(grpc.RpcError, match="unknown service"):
            await in_thread(lambda: check("nonsense"))
        for other in (2, 3):
            await fronts.cluster.stop(other)
        while await in_thread(lambda: check("")) == 1:
            await trio.sleep(0.05)
        assert await in_thread(lambda: check("")) == 2


@pytest.mark.parametrize(
    "nonsense",
    [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), b"PRI * HTTP/2.0\r\n\r\nSM"],
)
async def test_who_does_not_speak_http2_is_turned_away(tmp_path: Path, nonsense: bytes) -> None:
    async with open_fronts(tmp_path) as fronts:
        stream = await trio.open_tcp_stream(*fronts.addresses[1])
        await stream.send_all(nonsense)
        await stream.send_eof()
        with trio.fail_after(10):
            while await stream.receive_some():
                pass
        await stream.aclose()
        await fronts.call("KV/Put", key=b"k")


class RawCall:
    """A call by hand, for what no library sends."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))

    async def ask(self, path: str, body: bytes, **headers: str) -> tuple[dict[str, Any], bytes]:
        h2 = self._h2
        h2.initiate_connection()
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        head += [(name.replace("_", "-"), value) for name, value in headers.items()]
        h2.send_headers(1, head)
        h2.send_data(1, body, end_stream=True)
        found: dict[str, Any] = {}
        data = b""
        while True:
            await self._stream.send_all(h2.data_to_send())
            for event in h2.receive_data(await self._stream.receive_some()):
                if isinstance(event, ResponseReceived | TrailersReceived):
                    found |= dict(event.headers or ())
                elif isinstance(event, DataReceived):
                    data += event.data or b""
                elif isinstance(event, StreamEnded):
                    return found, data


async def raw(fronts: Fronts, path: str, body: bytes, **headers: str) -> dict[str, Any]:
    with trio.fail_after(10):
        async with await trio.open_tcp_stream(*fronts.addresses[1]) as stream:
            return (await RawCall(stream).ask(path, body, **headers))[0]


async def test_calls_that_make_no_sense(tmp_path: Path) -> None:
    kind = {"content_type": "application/grpc"}
    path = "/etcdserverpb.KV/Range"
    async with open_fronts(tmp_path) as fronts:
        told = await raw(fronts, path, frame(b""), content_type="text/plain")
        assert told[":status"] == "415"
        for body, text in (
            (b"", "a unary call has one request"),
            (frame(b"\x0a\x01k")[:-1], "a unary call has one request"),
            (frame(b"\x0a\x01k") * 2, "a unary call has one request"),
            (frame(b"\xff\xff"), "error unmarshalling request"),
        ):
            told = await raw(fronts, path, body, **kind)
            assert told["grpc-status"] == "13"
            assert text in told["grpc-message"]
        told = await raw(fronts, path, frame(b"\x0a\x01k"), grpc_timeout="soon", **kind)
        assert told["grpc-status"] == "13"
        told = await raw(fronts, path, frame(b"\x0a\x01k"), grpc_timeout="5S", **kind)
        assert told["grpc-status"] == "0"


async def test_deadline_of_the_client_is_kept_by_the_server(tmp_path: Path) -> None:
    async with open_fronts(tmp_path, 3) as fronts:
        for other in (2, 3):
            await fronts.cluster.stop(other)
        told = await raw(
            fronts,
            "/etcdserverpb.KV/Range",
            frame(b"\x0a\x01k"),
            content_type="application/grpc",
            grpc_timeout="100m",
        )
        assert told["grpc-status"] == "4"
        assert told["grpc-message"] == "context deadline exceeded"


# --- bytes of no client -------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS_FRAME = b"\0\0\0\x04\0\0\0\0\0"
SETTINGS_ACK = b"\0\0\0\x04\1\0\0\0\0"


def h2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def request_headers() -> bytes:
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/x/Unary"),
        (b"content-type", b"application/grpc"),
    ]
    encoded: bytes = Encoder().encode(fields)
    return encoded


PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.just(request_headers()),
    st.binary(max_size=10).map(frame),
)
FRAMES = st.builds(
    h2_frame,
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 0x20]),
    st.sampled_from([0, 1, 1, 3, 5, 2]),
    PAYLOADS,
)


async def echo(call: Call, request: Any) -> Any:
    return request


METHODS = {"/x/Unary": Method(MESSAGES["PutRequest"], echo)}


@given(st.lists(FRAMES, max_size=12), st.binary(max_size=20))
def test_no_bytes_bring_a_member_down(frames: list[bytes], rest: bytes) -> None:
    async def serve() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(GrpcConnection(theirs, METHODS).run)
            await ours.send_all(PREFACE + SETTINGS_FRAME + b"".join(frames) + rest)
            await ours.send_eof()

    trio.run(serve, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_client_that_asks_and_never_reads_is_not_read(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()  # takes no byte that nobody reads
    async with trio.open_nursery() as nursery:
        nursery.start_soon(GrpcConnection(theirs, METHODS).run)
        await ours.send_all(PREFACE + SETTINGS_FRAME + SETTINGS_ACK)
        sent = 0
        with trio.move_on_after(10):
            for _ in range(200):
                await ours.send_all(h2_frame(6, 0, 0, bytes(8)) * 1000)
                sent += 17_000
        assert 0 < sent < 2 * MEBIBYTE
        nursery.cancel_scope.cancel()


async def test_silent_client_is_asked_and_let_go(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(GrpcConnection(theirs, METHODS).run)
        await ours.send_all(PREFACE + SETTINGS_FRAME + SETTINGS_ACK)
    assert 60 < trio.current_time() - begun < 200
