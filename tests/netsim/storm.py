"""A small world in which everything the simulator offers happens: for tests of determinism."""

from __future__ import annotations

from typing import NamedTuple

import trio

from netsim.hosts import SimHost
from netsim.world import World

__all__ = ["At", "storm"]


class At(NamedTuple):
    """An address, as raftkv.host.Address."""

    host: str
    port: int


async def _serve(host: SimHost) -> None:
    listener = await host.net.listen(At("", 7))
    file = host.disk("data").open_append("log")
    async with trio.open_nursery() as nursery:

        async def echo(stream: trio.abc.Stream) -> None:
            async with stream:
                try:
                    while data := await stream.receive_some():
                        file.append(data)
                        await file.sync()
                        await stream.send_all(data)
                except trio.BrokenResourceError:
                    pass

        while True:
            nursery.start_soon(echo, await listener.accept())


async def _call(world: World, host: SimHost, names: list[str]) -> None:
    while True:
        name = host.rng.choice(names)
        try:
            with trio.move_on_after(3.0):
                async with await host.net.open_stream(At(name, 7)) as stream:
                    for _ in range(5):
                        message = host.rng.randbytes(host.rng.randrange(1, 3000))
                        await stream.send_all(message)
                        while message:
                            got = await stream.receive_some()
                            assert message.startswith(got)
                            if not got:
                                break
                            message = message[len(got) :]
                        await trio.sleep(host.rng.random() * 0.2)
        except (OSError, trio.BrokenResourceError) as error:
            world.note(f"{host.name} {type(error).__name__}")
        await trio.sleep(0.05)


async def storm(world: World) -> int:
    """Callers and echoing servers under a hail of faults; how much was written down."""
    names = ["a", "b", "c"]
    for name in names:
        host = world.host(name)
        host.start(_serve, host)
        host.start(_call, world, host, names)
    rng = world.rng("storm")
    for _ in range(25):
        await trio.sleep(rng.random())
        victim, other = rng.sample(names, 2)
        match rng.randrange(7):
            case 0:
                world.crash(victim, power=rng.random() < 0.5)
                await trio.sleep(rng.random())
                await world.restart(victim)
            case 1:
                with world.partition(victim, other):
                    await trio.sleep(rng.random() * 5)
            case 2:
                with world.one_way(victim, other), world.drop(other, victim, 0.3):
                    await trio.sleep(rng.random() * 2)
            case 3:
                world.pause(victim)
                await trio.sleep(rng.random() * 2)
                world.resume(victim)
            case 4:
                world.reset_connections(victim, other)
            case 5:
                with world.slow_disk(victim, 0.2), world.delay(victim, other, 0.3, 0.1):
                    await trio.sleep(rng.random() * 2)
            case _:
                with world.isolate(victim), world.hung_disk(other):
                    await trio.sleep(rng.random())
    return world.trace.count
