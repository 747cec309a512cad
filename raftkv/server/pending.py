"""Who waits for what: proposals by the index of their entry, reads by their ReadIndex id.

Owns: the promise that each request is answered exactly once. Never does: answer a write with
"not applied" unless another entry stands at its place in the log.

A proposal survives the loss of leadership here: if the next leader commits the entry, its author
gets the result; if another entry takes its index, its author may safely try again; only if
neither is heard of within `patience` the answer is LeaderChanged, which a client must take for an
unknown outcome.
"""

from __future__ import annotations

from typing import NamedTuple

from raftkv.errors import KvError, LeaderChanged, ProposalDropped
from raftkv.server.inbox import Proposal, Read
from raftkv.wire.protocol import error_result

__all__ = ["Batch", "Pending"]


class Batch(NamedTuple):
    """The proposals that became one entry."""

    term: int
    proposals: list[Proposal]


class Pending:
    __slots__ = ("_batches", "_deadline", "_reads", "_reads_waiting")

    def __init__(self) -> None:
        self._batches: dict[int, Batch] = {}
        self._reads: dict[int, list[Read]] = {}  # read id -> reads, not confirmed yet
        self._reads_waiting: list[tuple[int, list[Read]]] = []  # (index, reads), confirmed
        self._deadline: float | None = None

    @property
    def proposals(self) -> int:
        return sum(len(batch.proposals) for batch in self._batches.values())

    @property
    def in_flight(self) -> bool:
        """Whether entries of ours wait to be committed."""
        return bool(self._batches)

    # --- writes ---------------------------------------------------------------------------------

    def add(self, index: int, batch: Batch) -> None:
        older = self._batches.get(index)
        if older is not None:  # cut off our log since, but perhaps not off everybody's
            fail(older.proposals, LeaderChanged())
        self._batches[index] = batch

    def take(self, index: int, term: int) -> Batch | None:
        """The batch whose entry was applied at `index`; one of another term is refused here."""
        batch = self._batches.pop(index, None)
        if batch is None or batch.term == term:
            return batch
        fail(batch.proposals, ProposalDropped())
        return None

    def covered(self, index: int) -> None:
        """A snapshot brought the state to `index`: what became of earlier entries isn't known."""
        for each in [each for each in self._batches if each <= index]:
            fail(self._batches.pop(each).proposals, LeaderChanged())

    def lost_leadership(self, deadline: float) -> None:
        if self._batches and self._deadline is None:
            self._deadline = deadline

    def leading_again(self) -> None:
        self._deadline = None

    def expire(self, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self.fail_writes(LeaderChanged())

    def fail_writes(self, error: KvError) -> None:
        batches, self._batches = self._batches, {}
        self._deadline = None
        for batch in batches.values():
            fail(batch.proposals, error)

    # --- reads ----------------------------------------------------------------------------------

    def add_reads(self, read_id: int, reads: list[Read]) -> None:
        self._reads[read_id] = reads

    def confirmed(self, read_id: int, index: int) -> None:
        reads = self._reads.pop(read_id, None)
        if reads:
            self._reads_waiting.append((index, reads))

    def ready_reads(self, applied: int) -> list[Read]:
        """The confirmed reads whose index is applied."""
        if not self._reads_waiting:
            return []
        ready = [read for index, reads in self._reads_waiting if index <= applied for read in reads]
        self._reads_waiting = [each for each in self._reads_waiting if each[0] > applied]
        return ready

    def fail_reads(self, read_id: int, error: KvError) -> None:
        fail(self._reads.pop(read_id, []), error)

    def fail_all_reads(self, error: KvError) -> None:
        for read_id in list(self._reads):
            self.fail_reads(read_id, error)


def fail(requests: list[Proposal] | list[Read], error: KvError) -> None:
    result = error_result(error)
    for request in requests:
        request.session.reply(request.request_id, result)
