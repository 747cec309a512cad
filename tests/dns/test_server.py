"""Packets over real sockets: the zone's answers, those of others, and what is no question."""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import trio

from k8slite.client.background import open_background
from k8slite.dns.forward import Forwarder
from k8slite.dns.server import DnsServer, bind
from k8slite.dns.zone import Zone
from tests.dns.objects import endpoint, external, headless, service, slice_of

SVC = "svc.cluster.local"
Reply = Callable[[dns.message.Message], list[bytes]]


def make_zone() -> Zone:
    zone = Zone("cluster.local", "10.96.0.10")
    zone.service_changed(None, service())
    zone.service_changed(None, external("far", "www.example.org"))
    zone.service_changed(None, headless())
    ends = [endpoint(f"10.244.{i // 200}.{i % 200}") for i in range(400)]
    zone.slice_changed(None, slice_of("db", *ends))
    return zone


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    async def raw(self, data: bytes) -> bytes:
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock, trio.fail_after(20):
            await sock.connect(("127.0.0.1", self.port))
            await sock.send(data)
            return await sock.recv(65535)

    async def udp(self, name: str, type_: str = "A", payload: int = 0) -> dns.message.Message:
        query = dns.message.make_query(name, type_, payload=payload or None)
        answer = dns.message.from_wire(await self.raw(query.to_wire()))
        assert query.is_response(answer)
        return answer

    async def tcp(self, *questions: tuple[str, str]) -> list[dns.message.Message]:
        """All over one connection."""
        found = []
        with trio.fail_after(20):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                for name, type_ in questions:
                    data = dns.message.make_query(name, type_).to_wire()
                    for part in (struct.pack(">H", len(data)) + data[:5], data[5:]):
                        await stream.send_all(part)
                    got = b""
                    while len(got) < 2 or len(got) < 2 + int.from_bytes(got[:2], "big"):
                        got += await stream.receive_some()
                    found.append(dns.message.from_wire(got[2:]))
        return found


def say(*text: str) -> Reply:
    """A server that knows one answer."""

    def reply(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        for line in text:
            response.answer.append(dns.rrset.from_text(query.question[0].name, 60, *line.split()))
        return [response.to_wire()]

    return reply


@asynccontextmanager
async def open_upstream(reply: Reply) -> AsyncIterator[int]:
    udp, tcp = bind("127.0.0.1", 0)

    async def over_tcp(stream: trio.SocketStream) -> None:
        data = await stream.receive_some()
        answer = reply(dns.message.from_wire(data[2:]))[-1]
        await stream.send_all(struct.pack(">H", len(answer)) + answer)
        await stream.aclose()

    async def over_udp() -> None:
        while True:
            data, peer = await udp.recvfrom(65535)
            query = dns.message.from_wire(data)
            for answer in reply(query):
                await udp.sendto(answer, peer)

    with udp, tcp:
        async with open_background() as nursery:
            nursery.start_soon(over_udp)
            nursery.start_soon(trio.serve_listeners, over_tcp, [trio.SocketListener(tcp)])
            yield udp.getsockname()[1]


@asynccontextmanager
async def open_server(tmp_path: Path, reply: Reply | None = None) -> AsyncIterator[Client]:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n" if reply else "# nobody\n")
    async with open_upstream(reply or say()) as port:
        rng = random.Random(1)
        server = DnsServer(make_zone(), Forwarder(resolv_conf, rng, port=port), rng, 5)
        udp, tcp = bind("127.0.0.1", 0)
        with udp, tcp:
            async with open_background() as nursery:
                nursery.start_soon(server.serve_datagrams, udp)
                nursery.start_soon(server.serve_connections, tcp)
                yield Client(udp.getsockname()[1])


def texts(message: dns.message.Message) -> list[str]:
    return [f"{each.ttl} {rdata}" for each in message.answer for rdata in each]


async def test_answers_of_the_zone(tmp_path: Path) -> None:
    async with open_server(tmp_path) as client:
        answer = await client.udp(f"WEB.default.{SVC}.")
        assert texts(answer) == ["5 10.96.0.50"]
        assert answer.flags & dns.flags.AA
        assert answer.flags & dns.flags.RA
        nothing = await client.udp(f"web.default.{SVC}.", "AAAA")
        assert (nothing.rcode(), nothing.answer) == (dns.rcode.NOERROR, [])
        assert nothing.authority[0].rdtype == dns.rdatatype.SOA
        assert nothing.authority[0].ttl == 5
        unknown = await client.udp(f"nobody.default.{SVC}.")
        assert unknown.rcode() == dns.rcode.NXDOMAIN
        assert unknown.authority[0].rdtype == dns.rdatatype.SOA
        found = await client.tcp((f"web.default.{SVC}.", "A"), (f"db.default.{SVC}.", "A"))
        assert texts(found[0]) == ["5 10.96.0.50"]
        assert len(texts(found[1])) == 400


@pytest.mark.parametrize(("payload", "most"), [(0, 512), (4096, 1232)])
async def test_what_does_not_fit_is_marked(tmp_path: Path, payload: int, most: int) -> None:
    async with open_server(tmp_path) as client:
        answer = await client.udp(f"db.default.{SVC}.", payload=payload)
        assert answer.flags & dns.flags.TC
        assert len(answer.to_wire()) <= most


async def test_what_is_no_question(tmp_path: Path) -> None:
    query = dns.message.make_query("web.default.svc.cluster.local.", "A")
    async with open_server(tmp_path) as client:
        broken = await client.raw(query.to_wire()[:-3])
        assert dns.message.from_wire(broken).rcode() == dns.rcode.FORMERR
        assert broken[:2] == query.to_wire()[:2]
        odd = dns.message.make_query("web.default.svc.cluster.local.", "A")
        odd.set_opcode(dns.opcode.STATUS)
        assert dns.message.from_wire(await client.raw(odd.to_wire())).rcode() == dns.rcode.NOTIMP
        empty = dns.message.QueryMessage(7)
        assert dns.message.from_wire(await client.raw(empty.to_wire())).rcode() == dns.rcode.FORMERR
        transfer = await client.udp("cluster.local.", "AXFR")
        assert transfer.rcode() == dns.rcode.REFUSED
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
            for silent in (b"", b"x", dns.message.make_response(query).to_wire()):
                await sock.sendto(silent, ("127.0.0.1", client.port))
        assert texts(await client.udp(f"web.default.{SVC}."))


async def test_the_rest_of_the_world(tmp_path: Path) -> None:
    async with open_server(tmp_path, say("IN A 192.0.2.7")) as client:
        assert texts(await client.udp("www.example.org.")) == ["60 192.0.2.7"]
        (answer,) = await client.tcp(("www.example.org.", "A"))
        assert texts(answer) == ["60 192.0.2.7"]
        chain = await client.udp(f"far.default.{SVC}.")
        assert texts(chain) == ["5 www.example.org.", "60 192.0.2.7"]


async def test_nobody_to_ask(tmp_path: Path) -> None:
    async with open_server(tmp_path) as client:
        for name in ("www.example.org.", f"far.default.{SVC}."):
            assert (await client.udp(name)).rcode() == dns.rcode.SERVFAIL


async def test_answers_to_other_questions_are_not_taken(tmp_path: Path) -> None:
    def reply(query: dns.message.Message) -> list[bytes]:
        (right,) = say("IN A 192.0.2.7")(query)
        other = dns.message.make_query("evil.example.org.", "A", id=query.id)
        forged = bytes((right[0] ^ 1, *right[1:]))
        return [forged, *say("IN A 192.0.2.66")(other), b"", right]

    async with open_server(tmp_path, reply) as client:
        assert texts(await client.udp("www.example.org.")) == ["60 192.0.2.7"]


async def test_truncated_outside_is_asked_again_over_tcp(tmp_path: Path) -> None:
    def reply(query: dns.message.Message) -> list[bytes]:
        short = dns.message.make_response(query)
        short.flags |= dns.flags.TC
        return [short.to_wire(), *say("IN A 192.0.2.7")(query)][:2]

    async with open_server(tmp_path, reply) as client:
        assert (await client.udp("www.example.org.")).flags & dns.flags.TC
        (answer,) = await client.tcp(("www.example.org.", "A"))
        assert texts(answer) == ["60 192.0.2.7"]


async def test_no_such_name_outside_is_told(tmp_path: Path) -> None:
    def reply(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NXDOMAIN)
        return [response.to_wire()]

    async with open_server(tmp_path, reply) as client:
        assert (await client.udp("no.example.org.")).rcode() == dns.rcode.NXDOMAIN
        assert (await client.udp(f"far.default.{SVC}.")).rcode() == dns.rcode.NXDOMAIN


def test_name_servers_follow_the_file(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    forwarder = Forwarder(file, random.Random(1), own=["10.96.0.10"])
    assert forwarder.servers == []
    file.write_text("search a b\nnameserver 10.96.0.10\nnameserver 192.0.2.1 # one\nnameserver x\n")
    assert forwarder.servers == ["192.0.2.1"]
    file.unlink()
    file.write_text("nameserver 192.0.2.2\nnameserver ::1\n")
    assert forwarder.servers == ["192.0.2.2", "::1"]
