"""The leader's part in leases: who is due, who is renewed; every ending goes through the log.

Owns: the `Lessor` and the proposals it asks for. Runs on the replica's task. Never ends a lease:
it proposes, so a deposed leader that wakes up can propose what it likes, nothing comes of it.
"""

from __future__ import annotations

from typing import Any

import attrs

from raftkv.mvcc.leases import Lessor
from raftkv.mvcc.machine import Machine
from raftkv.server.inbox import Inbox, Proposal, Read, ReplyTo

__all__ = ["Leasing"]


@attrs.define(eq=False, slots=True)
class Leasing(ReplyTo):
    """`replica` calls it at role changes, at ticks, and after lease commands were applied."""

    machine: Machine
    inbox: Inbox
    election_seconds: float
    lessor: Lessor = attrs.field(init=False)
    now: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.lessor = Lessor(self.machine.leases)

    def replace_machine(self, machine: Machine) -> None:
        self.machine = machine
        self.lessor.replace_table(machine.leases)

    def promote(self, now: float) -> None:
        self.lessor.promote(now, self.election_seconds)

    def demote(self) -> None:
        self.lessor.demote()

    def applied(self, command: list[Any], now: float) -> None:
        self.lessor.applied(command, now)

    def tick(self, now: float) -> None:
        """Propose what is due."""
        self.now = now
        for lease_id in self.lessor.due(now):
            self._propose(self, lease_id, ["lease_revoke", lease_id])
        for lease_id, remaining in self.lessor.checkpoints(now):
            self._propose(IGNORED, lease_id, ["lease_checkpoint", lease_id, remaining])

    def reply(self, request_id: int, result: Any) -> None:
        """The fate of a revocation that was proposed here; `request_id` is the lease."""
        if result[0] == "error":
            self.lessor.revoke_failed(request_id, self.now)

    # --- what clients ask; leadership was confirmed after they asked ----------------------------

    def keep_alive(self, read: Read, now: float) -> list[Any] | None:
        """`[revision, ttl]`, or None where the answer comes once the log has it.

        Raises LeaseNotFound, InvalidRequest.
        """
        (lease_id,) = read.arguments
        ttl = self.lessor.renew(lease_id, now)
        result = [self.machine.revision, ttl]
        if not self.lessor.must_clear(lease_id):
            return result
        clearing = Clearing(read.session, result)
        self._propose(clearing, read.request_id, ["lease_checkpoint", lease_id, 0])
        return None

    def time_to_live(self, read: Read, now: float) -> list[Any]:
        lease_id, want_keys = read.arguments
        if lease_id not in self.machine.leases:
            return [self.machine.revision, -1, 0, []]
        lease = self.machine.leases.get(lease_id)
        keys = sorted(lease.keys) if want_keys else []
        return [self.machine.revision, self.lessor.remaining(lease_id, now), lease.ttl, keys]

    def _propose(self, reply_to: ReplyTo, request_id: int, command: list[Any]) -> None:
        self.inbox.propose([Proposal(reply_to, request_id, command)])


@attrs.frozen(eq=False, slots=True)
class Clearing(ReplyTo):
    """A renewal that is answered when the old checkpoint is out of the way."""

    session: ReplyTo
    result: list[Any]

    def reply(self, request_id: int, result: Any) -> None:
        self.session.reply(request_id, result if result[0] == "error" else self.result)


class Ignored(ReplyTo):
    def reply(self, request_id: int, result: Any) -> None:
        """A checkpoint that is lost is made again."""


IGNORED = Ignored()
