"""The leader's clockwork: never too early, finally always."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import LeaseNotFound
from raftkv.mvcc.leases import CHECKPOINT_SECONDS, Lessor
from raftkv.mvcc.machine import Machine


class Leader:
    def __init__(self, machine: Machine | None = None, now: float = 0.0) -> None:
        self.machine = machine or Machine()
        self.lessor = Lessor(self.machine.leases)
        self.lessor.promote(now)

    def do(self, command: list[Any], now: float) -> None:
        result, _ = self.machine.apply(command)
        assert result[0] != "error"
        self.lessor.applied(command, now)


def test_lease_expires_after_its_ttl_and_is_given_out_once() -> None:
    leader = Leader()
    leader.do(["lease_grant", 1, 10], 100.0)
    assert leader.lessor.remaining(1, 104.5) == 6
    assert leader.lessor.due(109.99) == []
    assert leader.lessor.due(110.0) == [1]
    assert leader.lessor.due(111.0) == []
    leader.lessor.revoke_failed(1, 112.0)
    assert leader.lessor.due(112.0) == [1]
    leader.do(["lease_revoke", 1], 113.0)
    assert leader.lessor.due(1000.0) == []


def test_renewal_restarts_the_time() -> None:
    leader = Leader()
    leader.do(["lease_grant", 1, 10], 0.0)
    for now in range(5, 500, 5):
        assert leader.lessor.renew(1, now) == 10
        assert leader.lessor.due(now + 4) == []
    assert leader.lessor.due(505.0) == [1]


def test_renew_vs_revoke_race() -> None:
    """etcd#20590: a renewal is not answered with success once the revocation is on its way."""
    leader = Leader()
    leader.do(["lease_grant", 1, 10], 0.0)
    leader.lessor.due(10.0)
    with pytest.raises(LeaseNotFound):
        leader.lessor.renew(1, 10.0)
    leader.lessor.revoke_failed(1, 11.0)
    assert leader.lessor.renew(1, 11.0) == 10
    assert leader.lessor.due(12.0) == []


def test_old_leader_cannot_revoke() -> None:
    """A deposed leader gives nothing out, and renews nothing."""
    leader = Leader()
    leader.do(["lease_grant", 1, 10], 0.0)
    leader.lessor.demote()
    assert leader.lessor.due(1000.0) == []
    with pytest.raises(LeaseNotFound):
        leader.lessor.renew(1, 0.0)
    leader.lessor.promote(2000.0)
    assert leader.lessor.due(2009.0) == []


def test_ttl_after_leader_change() -> None:
    """The whole TTL (or what a checkpoint left) and an election timeout on top."""
    leader = Leader()
    leader.do(["lease_grant", 1, 10], 0.0)
    leader.do(["lease_grant", 2, 1000], 0.0)
    leader.do(["lease_checkpoint", 2, 400], 600.0)
    machine = Machine.restore(leader.machine.snapshot())
    lessor = Lessor(machine.leases)
    lessor.promote(50.0, extension=1.5)
    assert lessor.due(61.4) == []
    assert lessor.due(61.5) == [1]
    assert lessor.remaining(2, 50.0) == 402
    assert lessor.due(451.5) == [2]


def test_checkpoints_of_long_leases() -> None:
    leader = Leader()
    leader.do(["lease_grant", 1, 1000], 0.0)
    leader.do(["lease_grant", 2, CHECKPOINT_SECONDS], 0.0)
    assert leader.lessor.checkpoints(299.0) == []
    assert leader.lessor.checkpoints(300.0) == [(1, 700)]
    leader.do(["lease_checkpoint", 1, 700], 300.0)
    assert leader.lessor.must_clear(1)
    leader.lessor.renew(1, 310.0)
    leader.do(["lease_checkpoint", 1, 0], 310.0)
    assert not leader.lessor.must_clear(1)
    assert leader.lessor.checkpoints(600.0) == []
    assert leader.lessor.checkpoints(610.0) == [(1, 700)]
    assert leader.lessor.checkpoints(910.0) == [(1, 400)]


def test_many_renewals_take_no_room() -> None:
    leader = Leader()
    leader.do(["lease_grant", 1, 1000], 0.0)
    for now in range(10_000):
        leader.lessor.renew(1, now)
        leader.lessor.due(now)
        leader.lessor.checkpoints(now)
    assert len(leader.lessor._expiries) == 1
    assert len(leader.lessor._checkpoints) == 1


steps = st.one_of(
    st.tuples(st.just("grant"), st.integers(1, 4), st.integers(1, 30)),
    st.tuples(st.just("renew"), st.integers(1, 4)),
    st.tuples(st.just("wait"), st.integers(0, 20)),
    st.tuples(st.just("change")),
    st.tuples(st.just("lose")),
)


@settings(max_examples=300)
@given(st.lists(steps, max_size=40))
def test_never_too_early_and_expired_key_deleted(sequence: list[Any]) -> None:
    """Whatever happens, a lease lives for its TTL after the last success that its owner saw, and
    all are revoked in the end (etcd#10686)."""
    leader = Leader()
    promised: dict[int, float] = {}
    now = 0.0
    losing = False
    for step in [*sequence, ("wait", 0)]:
        if step[0] == "grant" and step[1] not in leader.machine.leases:
            leader.do(["lease_grant", step[1], step[2]], now)
            promised[step[1]] = now + step[2]
        elif step[0] == "renew":
            try:
                promised[step[1]] = now + leader.lessor.renew(step[1], now)
            except LeaseNotFound:
                continue
        elif step[0] == "wait":
            now += step[1]
        elif step[0] == "change":
            leader = Leader(Machine.restore(leader.machine.snapshot()), now)
        elif step[0] == "lose":
            losing = not losing
        for lease in leader.lessor.due(now):
            assert now >= promised[lease]
            if losing:
                leader.lessor.revoke_failed(lease, now + 1)
            else:
                leader.do(["lease_revoke", lease], now)
    for _ in range(3):
        now += 40
        for lease in leader.lessor.due(now):
            leader.do(["lease_revoke", lease], now)
    assert len(leader.machine.leases) == 0
