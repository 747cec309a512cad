"""What the client repeats, and what it must not: against a server that does as the test says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import trio

from raftkv.client import open_client
from raftkv.errors import (
    LeaderChanged,
    LeaseNotFound,
    NoLeader,
    NotLeader,
    ProposalDropped,
    RequestTooLarge,
    UnknownOutcome,
)
from raftkv.host import Address
from raftkv.wire.framing import FrameReader, encode, flatten
from raftkv.wire.protocol import error_result

Answer = Callable[[list[Any]], Any]
HANG_UP = object()
SILENCE = object()


class FakeNet:
    """Members in memory: each address has a script of answers, taken one a request."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.scripts: dict[Address, list[Answer]] = {}
        self.asked: list[tuple[int, str]] = []
        self.connections = 0

    def member(self, port: int, *answers: Answer) -> Address:
        address = Address("member", port)
        self.scripts[address] = list(answers)
        return address

    async def open_stream(self, address: Address) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if address not in self.scripts:
            raise ConnectionRefusedError(111, "Connection refused")
        self.connections += 1
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, address, theirs)
        return ours

    async def listen(self, address: Address) -> Any:
        raise AssertionError("a client does not listen")

    async def _serve(self, address: Address, stream: trio.abc.Stream) -> None:
        reader = FrameReader(1 << 20)
        async with stream:
            while data := await stream.receive_some(65536):
                for request in flatten(reader.feed(data)):
                    if request[1] == "hello":
                        await stream.send_all(encode([[request[0], ["c", 1, "m"]]]))
                        continue
                    self.asked.append((address.port, request[1]))
                    answer = self.scripts[address].pop(0)(request)
                    if answer is HANG_UP:
                        return
                    if answer is not SILENCE:
                        await stream.send_all(encode([answer]))


def ok(result: Any) -> Answer:
    return lambda request: [request[0], result]


def error(what: Exception) -> Answer:
    return lambda request: [request[0], error_result(what)]  # type: ignore[arg-type]  # a KvError


def hang_up(_: list[Any]) -> Any:
    return HANG_UP


def silence(_: list[Any]) -> Any:
    return SILENCE


async def outcome_of(
    scripts: Iterable[tuple[Answer, ...]], write: bool
) -> tuple[Any, list[tuple[int, str]]]:
    """The revision or exception that a put or a get ends with, and who was asked what."""
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery)
        members = [net.member(port, *answers) for port, answers in enumerate(scripts, 1)]
        found: Any
        async with open_client(members, net, rng=random.Random(1)) as kv:
            try:
                with trio.fail_after(60):
                    found = await (kv.put(b"k", b"v") if write else kv.current_revision())
            except (UnknownOutcome, LeaseNotFound, trio.TooSlowError) as raised:
                found = type(raised)
        nursery.cancel_scope.cancel()
    return found, net.asked


PUT, GET = "put", "revision"


@pytest.mark.parametrize(
    ("scripts", "expected", "asked"),
    [
        ([(ok([7, None]),)], 7, [1]),
        ([(error(NotLeader(2, "member:2")),), (ok([7, None]),)], 7, [1, 2]),
        ([(error(NoLeader()), ok([7, None]))], 7, [1, 1]),
        ([(error(ProposalDropped()), ok([7, None]))], 7, [1, 1]),
        ([(error(NotLeader()),), (ok([7, None]),)], 7, [1, 2]),
        ([(hang_up,), (ok([7, None]),)], UnknownOutcome, [1]),
        ([(error(LeaderChanged()),), (ok([7, None]),)], UnknownOutcome, [1]),
        ([(silence,), (ok([7, None]),)], trio.TooSlowError, [1]),
        ([(error(LeaseNotFound()),), (ok([7, None]),)], LeaseNotFound, [1]),
    ],
)
async def test_writes_are_sent_again_only_when_not_applied(
    autojump_clock: trio.testing.MockClock,
    scripts: list[tuple[Answer, ...]],
    expected: Any,
    asked: list[int],
) -> None:
    found, seen = await outcome_of(scripts, write=True)
    assert (found, seen) == (expected, [(port, PUT) for port in asked])


@pytest.mark.parametrize(
    ("scripts", "asked"),
    [
        ([(ok([7]),)], [1]),
        ([(hang_up, ok([7]))], [1, 1]),
        ([(error(LeaderChanged()),), (ok([7]),)], [1, 2]),
        ([(error(NotLeader(2, "member:2")),), (ok([7]),)], [1, 2]),
        ([(error(NotLeader(9, "member:9")),) * 2, (ok([7]),)], [1, 1, 2]),
    ],
)
async def test_reads_are_sent_again(
    autojump_clock: trio.testing.MockClock, scripts: list[tuple[Answer, ...]], asked: list[int]
) -> None:
    found, seen = await outcome_of(scripts, write=False)
    assert (found, seen) == (7, [(port, GET) for port in asked])


async def test_member_that_went_silent_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """A connection that owes an answer and does not even answer hello is given up."""

    class Deaf(FakeNet):
        async def _serve(self, address: Address, stream: trio.abc.Stream) -> None:
            if address.port == 1:
                async with stream:
                    await trio.sleep_forever()
            await super()._serve(address, stream)

    async with trio.open_nursery() as nursery:
        net = Deaf(nursery)
        members = [net.member(1), net.member(2, ok([7]))]
        async with open_client(members, net, rng=random.Random(1)) as kv:
            with trio.fail_after(15):
                assert await kv.current_revision() == 7
        nursery.cancel_scope.cancel()


async def test_many_share_one_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery)
        member = net.member(1, *[ok([n]) for n in range(100)])
        found: list[int] = []
        async with open_client([member], net, rng=random.Random(1)) as kv:

            async def ask() -> None:
                found.append(await kv.current_revision())

            async with trio.open_nursery() as askers:
                for _ in range(100):
                    askers.start_soon(ask)
        nursery.cancel_scope.cancel()
    assert sorted(found) == list(range(100))
    assert net.connections == 1


async def test_nobody_there_is_told_in_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery)
        async with open_client([Address("gone", 1)], net, rng=random.Random(1)) as kv:
            with pytest.raises(trio.TooSlowError), trio.fail_after(3):
                await kv.put(b"k", b"v")
            assert "Connection refused" in kv.last_problem
            with pytest.raises(RequestTooLarge):
                await kv.put(b"k", bytes(1 << 21))
        nursery.cancel_scope.cancel()
