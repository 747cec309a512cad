"""Leader election: one leader at a time, takeovers, releases, the deadline."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import trio

from k8slite.api.kinds import LEASES, Kind
from k8slite.api.status import service_unavailable
from k8slite.client.leader import LeaderElectionConfig, LeaderState, run_leader_elected
from tests.client.fake_api import FakeApi
from tests.client.world import MemoryHost

KEY = "kube-system/manager"


class Link:
    """One candidate's way to the fake API; it can be cut."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.cut = False

    def __getattr__(self, attribute: str) -> Callable[..., object]:
        call: Callable[..., object] = getattr(self.api, attribute)
        if attribute == "watch":
            return call  # an open watch hears nothing new of a cut; it is requests that hang

        async def guarded(*args: object, **kwargs: object) -> object:
            if self.cut:
                await trio.sleep_forever()
            return await call(*args, **kwargs)  # type: ignore[misc]  # every call here is async

        return guarded


class Candidate:
    def __init__(self, identity: str, api: FakeApi) -> None:
        self.link = Link(api)
        self.config = LeaderElectionConfig(name="manager", identity=identity)
        self.state = LeaderState()
        self.terms: list[tuple[float, float]] = []
        self.scope = trio.CancelScope()
        self.running = False

    async def main(self) -> None:
        with self.scope:
            while True:
                await run_leader_elected(
                    self.link,  # type: ignore[arg-type]  # a proxy of the fake
                    MemoryHost(ord(self.config.identity)),
                    self.config,
                    self.run,
                    self.state,
                )

    async def run(self) -> None:
        began = trio.current_time()
        self.running = True
        try:
            await trio.sleep_forever()
        finally:
            self.running = False
            self.terms.append((began, trio.current_time()))


async def test_the_lease_has_kubernetes_fields(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    one = Candidate("a", api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.main)
        await trio.sleep(1)
        spec = api.read(LEASES, KEY)["spec"]
        assert spec == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "2023-11-14T22:13:20.000000Z",
            "renewTime": "2023-11-14T22:13:20.000000Z",
            "leaseTransitions": 0,
        }
        await trio.sleep(5)
        renewed = api.read(LEASES, KEY)["spec"]
        assert renewed["renewTime"] == "2023-11-14T22:13:24.000000Z"
        assert renewed["acquireTime"] == spec["acquireTime"]
        one.scope.cancel()
    assert api.read(LEASES, KEY)["spec"]["holderIdentity"] == "", "released on a clean exit"
    assert api.read(LEASES, KEY)["spec"]["leaseDurationSeconds"] == 1


async def test_a_released_lease_is_taken_at_once(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    one, two = Candidate("a", api), Candidate("b", api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.main)
        await trio.sleep(1)
        nursery.start_soon(two.main)
        await trio.sleep(20)
        assert (one.running, two.running) == (True, False)
        one.scope.cancel()
        await trio.sleep(4)
        assert (one.running, two.running) == (False, True)
        assert api.read(LEASES, KEY)["spec"]["leaseTransitions"] == 1
        assert two.state.transitions == 1
        two.scope.cancel()


async def test_a_cut_off_leader_stops_before_the_next_one_starts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api = FakeApi()
    one, two = Candidate("a", api), Candidate("b", api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.main)
        await trio.sleep(1)
        nursery.start_soon(two.main)
        await trio.sleep(10)
        one.link.cut = True
        await trio.sleep(30)
        assert two.running
        one.link.cut = False
        await trio.sleep(30)
        assert not one.running, "the old leader is a candidate again"
        nursery.cancel_scope.cancel()
    assert one.terms[0][1] < two.terms[0][0]
    assert two.terms[0][0] - one.terms[0][1] < 10


async def test_errors_shorter_than_the_deadline_cost_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api = FakeApi()
    one = Candidate("a", api)

    def down(verb: str, kind: Kind, key: str) -> BaseException | None:
        return service_unavailable("down")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.main)
        for _ in range(5):
            await trio.sleep(10)
            api.fault = down
            await trio.sleep(5)
            api.fault = None
        assert one.running
        assert not one.terms
        one.scope.cancel()


async def test_a_usurped_lease_ends_the_term_at_the_next_renewal(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api = FakeApi()
    one = Candidate("a", api)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.main)
        await trio.sleep(1)
        api.change(LEASES, KEY, lambda o: o["spec"].update(holderIdentity="z"))
        await trio.sleep(3)
        assert not one.running
        assert api.read(LEASES, KEY)["spec"]["holderIdentity"] == "z", "not ours to release"
        nursery.cancel_scope.cancel()


async def test_only_one_leads_at_any_time(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    host = MemoryHost(7)
    candidates = [Candidate(c, api) for c in "abc"]
    async with trio.open_nursery() as nursery:
        for candidate in candidates:
            nursery.start_soon(candidate.main)
        for _ in range(100):
            candidate = host.rng.choice(candidates)
            candidate.link.cut = not candidate.link.cut
            await trio.sleep(host.rng.random() * 20)
            assert sum(c.running for c in candidates) <= 1
        nursery.cancel_scope.cancel()
    terms = sorted(term for c in candidates for term in c.terms)
    assert len(terms) > 3
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(terms))


def test_times_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="must be more than"):
        LeaderElectionConfig(name="x", identity="a", lease_seconds=5, renew_seconds=10)
