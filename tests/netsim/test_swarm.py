"""Fault plans: drawn alike, carried out whole, and over when they are over."""

from __future__ import annotations

import pytest
import trio

from netsim.seeds import stream
from netsim.swarm import CHIEF, FAULT_KINDS, carry_out, core_only, draw_plan
from netsim.world import World, run

HOSTS = ["a", "b", "c", "d", "e"]


def test_a_seed_draws_one_plan() -> None:
    first, again = (draw_plan(stream(7, "plan"), HOSTS, ["user"], 10.0) for _ in range(2))
    assert first == again
    assert first != draw_plan(stream(8, "plan"), HOSTS, ["user"], 10.0)


def test_plans_stay_within_their_bounds_and_use_every_kind() -> None:
    kinds = set()
    for seed in range(200):
        plan = draw_plan(stream(seed, "plan"), HOSTS, ["user"], 10.0)
        assert 1 <= len(plan) <= 12
        assert plan == sorted(plan, key=lambda fault: fault.at)
        for fault in plan:
            kinds.add(fault.kind)
            assert 0 <= fault.at <= 10
            assert 0 <= fault.seconds <= 5
            assert fault.hosts
            assert "user" not in fault.hosts
            assert not set(fault.hosts) & set(fault.others)
    assert kinds == set(FAULT_KINDS)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_nothing_is_left_of_a_fault_that_is_over(kind: str) -> None:
    async def scenario(world: World) -> None:
        for name in HOSTS:
            host = world.host(name)
            host.disk("data").open_append("log")
            host.start(trio.sleep_forever)
        world.host("user")
        plan = draw_plan(world.rng("plan"), HOSTS, ["user"], 10.0, kinds=[kind])
        assert {fault.kind for fault in plan} == {kind}
        await carry_out(world, plan)
        for name in HOSTS:
            host = world.hosts[name]
            assert host.alive
            assert not host.paused
            for disk in host.platters():
                assert (disk.sync_fails, disk.hung) == (0, None)
                assert disk.slowdown == pytest.approx(0.0)
                assert disk.limits == []
        for link in world.fabric.links():
            assert not link.blocked
            assert link.transit(world.time(), 1) < 0.01

    for seed in range(5):
        run(seed, scenario)


def test_faults_hit_the_chief_of_the_moment() -> None:
    async def scenario(world: World) -> None:
        for name in HOSTS:
            world.host(name).start(trio.sleep_forever)
        plan = draw_plan(
            world.rng("plan"), HOSTS, ["user"], 10.0, kinds=["power_loss"], faults_max=4, chief=1.0
        )
        assert {fault.hosts for fault in plan} == {(CHIEF,)}
        world.host("user")
        asked = []

        def chief() -> str | None:
            asked.append(HOSTS[len(asked) % 5])
            return asked[-1] if len(asked) != 2 else None

        await carry_out(world, plan, chief)
        died = [name for name in HOSTS if world.hosts[name].life.number > 1]
        assert died == [name for number, name in enumerate(asked) if number != 1]

    for seed in range(5):
        run(seed, scenario)


def test_a_lost_minority_is_not_in_the_core() -> None:
    async def scenario(world: World) -> None:
        for name in HOSTS:
            world.host(name).start(trio.sleep_forever)
        async with core_only(world, world.rng("core"), HOSTS, ["a", "c"]) as core:
            assert core == ["b", "d", "e"]

    run(1, scenario)


def test_a_majority_is_healed_and_the_rest_is_not() -> None:
    seen = set()

    async def scenario(world: World) -> None:
        for name in HOSTS:
            world.host(name).start(trio.sleep_forever)
        world.crash("a")
        world.pause("b")
        async with core_only(world, world.rng("core"), HOSTS) as core:
            assert len(core) >= 3
            for name in core:
                host = world.hosts[name]
                assert host.alive
                assert not host.paused
                for other in core:
                    assert not world.fabric.link(name, other).blocked
            for name in HOSTS:
                host = world.hosts[name]
                walls = (
                    world.fabric.link(name, core[0]).blocked,
                    world.fabric.link(core[0], name).blocked,
                )
                if name not in core:
                    seen.add((host.alive, host.paused, walls))

    for seed in range(30):
        run(seed, scenario)
    assert (False, False, (False, False)) in seen
    assert (True, True, (False, False)) in seen
    assert {(True, False, walls) for walls in ((True, True), (True, False), (False, True))} <= seen
