"""The oracle of the swarm: it sees every member from outside and knows what must never be.

ElectionSafety, LogMatching, LeaderCompleteness, state machine safety (paper figure 3); commit,
term and vote never go back, also not over a restart; match < next; acknowledged means durable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from raftkv.raft import Entry, HardState, Message, RaftNode, RaftStatus, Role
from raftkv.raft.core import Core
from raftkv.raft.log import RaftLog
from raftkv.raft.messages import (
    AppendResponse,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raftkv.raft.quorum import majority
from tests.raft.disk import Disk


class Oracle:
    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._leaders: dict[int, int] = {}  # term -> member
        self._digests: dict[int, bytes] = {0: b""}  # index -> hash of the applied prefix
        self._committed: dict[int, Entry] = {}
        self._seen: dict[int, tuple[int, int, int]] = {}  # member -> term, vote, commit
        self._durable: dict[int, tuple[int, int]] = {}  # member -> term, vote promised
        self._entries: dict[tuple[int, int], tuple[int, bytes, int]] = {}
        self.disks: dict[int, Disk] = {}
        self._roles: dict[int, Role] = {}
        self._complete: set[int] = set()  # terms whose leader's log was compared
        self._checked: dict[int, tuple[int, int]] = {}
        self.highest_applied = 0

    # -- one member ---------------------------------------------------------------------------

    def started(self, id_: int, status: RaftStatus, hard_state: HardState) -> None:
        """Term and vote are what the disk holds, and no less than was ever promised."""
        term, vote = self._durable.get(id_, (0, 0))
        assert hard_state.term >= term, f"{id_}: term went back from {term} over a restart"
        if hard_state.term == term:
            assert vote in (0, hard_state.vote), f"{id_}: the vote of term {term} was forgotten"
        self._seen[id_] = (status.term, status.vote, 0)
        self._checked.pop(id_, None)
        self._roles[id_] = Role.FOLLOWER

    def promised(self, id_: int, message: Message, last_index: int, disk: HardState) -> None:
        """A message that had to wait for the disk leaves: the disk must hold what it says.

        A batch is one step as seen from outside: if the term moved on within it, the disk holds
        the later term, in which the earlier promise cannot be broken any more.
        """
        assert disk.term >= message.term or isinstance(message, RequestPreVote | PreVoteResponse)
        self._durable[id_] = (disk.term, disk.vote)
        if disk.term > message.term:
            return
        if isinstance(message, VoteResponse) and message.granted:
            assert disk.vote == message.to, f"{id_}: vote not on disk"
        elif isinstance(message, RequestVote):
            assert disk.vote == id_, f"{id_}: own vote not on disk"
        elif isinstance(message, AppendResponse) and not message.rejected:
            assert last_index >= message.index, f"{id_}: acknowledged entries are not on disk"

    def observe(self, id_: int, node: RaftNode) -> None:
        core = node._core
        log = core.log
        term, vote, commit = self._seen[id_]
        assert core.term >= term, f"{id_}: term went back"
        if core.term == term:
            assert vote in (0, core.vote), f"{id_}: the vote of term {term} changed"
        assert log.commit >= commit, f"{id_}: commit went back"
        assert log.applied <= log.applying <= log.commit <= log.last_index
        assert log.stable <= log.handed <= log.last_index
        role = core.role
        if log.commit > commit and role is Role.LEADER:
            self._check_durable(id_, core)
        self._seen[id_] = (core.term, core.vote, log.commit)
        if role is not self._roles[id_]:
            self._roles[id_] = role
            self._counters[f"became {role.value}"] += 1
        if role is Role.LEADER:
            self._check_leader(id_, core)
        assert core.history.current_index <= log.last_index, f"{id_}: membership without its entry"
        self._check_log(id_, log)

    def _check_leader(self, id_: int, core: Core) -> None:
        other = self._leaders.setdefault(core.term, id_)
        assert other == id_, f"two leaders in term {core.term}: {other} and {id_}"
        for peer_id, peer in core.progress.items():
            assert 0 <= peer.match < peer.next, f"{id_} of {peer_id}: match >= next"
            self._counters[f"progress {peer.state.value}"] += 1
        if core.term not in self._complete:
            self._complete.add(core.term)
            self._check_completeness(id_, core)

    def _check_durable(self, id_: int, core: Core) -> None:
        """What a leader commits is on the disks of a majority, whatever memory they lose."""
        commit, voters = core.log.commit, core.configuration.voters
        term = core.log.term_at(commit)
        there = [v for v in voters if self.disks[v].holds(commit, term)]
        assert 2 * len(there) > len(voters), (
            f"leader {id_} committed {commit}/{term}, which of {voters} only {there} have"
        )

    def _check_completeness(self, id_: int, core: Core) -> None:
        """A leader holds every entry committed before its election."""
        for index, entry in self._committed.items():
            if index > core.log.offset and entry.term < core.term:
                assert core.log.term_at(index) == entry.term, (
                    f"leader {id_} of term {core.term} lacks committed entry {index}"
                )

    def _check_log(self, id_: int, log: RaftLog) -> None:
        """Equal index and term mean equal entries and equal predecessors."""
        key = (log.last_index, log.last_term)
        before = self._checked.get(id_)
        if before == key:
            return
        self._checked[id_] = key
        if before is not None and key[0] < before[0]:
            self._counters["log truncated"] += 1
        previous = log.offset_term
        start = max(0, len(log.entries) - 40)
        if start:
            previous = log.entries[start - 1].term
        for entry in log.entries[start:]:
            row = (entry.kind, entry.data, previous)
            known = self._entries.setdefault((entry.index, entry.term), row)
            assert known == row, f"{id_}: logs differ at {entry.index} in term {entry.term}"
            previous = entry.term

    # -- all members --------------------------------------------------------------------------

    def compare(self, nodes: dict[int, RaftNode]) -> None:
        """What holds between members that all run, at any time (etcd's TLA+ specification).

        QuorumLog: every majority that may elect somebody has one on whose disk the last committed
        entry is. MoreUpToDateCorrect: a log that would win against another one holds everything
        that the other knows to be committed.
        """
        last = max(self._committed, default=0)
        # The first entry is every first voter's, and committed before it is written.
        for voters in self.configurations(nodes.values()) if last > 1 else []:
            term = self._committed[last].term
            lacking = [v for v in voters if not self.disks[v].holds(last, term)]
            assert len(lacking) < majority(len(voters)), (
                f"{lacking} are a majority of {voters} and lack committed entry {last}/{term}"
            )
        logs = {id_: node._core.log for id_, node in nodes.items()}
        for one, log in logs.items():
            for other, behind in logs.items():
                if behind.is_up_to_date(log.last_index, log.last_term):
                    term_there = log.term_at(behind.commit)
                    assert term_there in (behind.term_at(behind.commit), None) or (
                        behind.term_at(behind.commit) is None
                    ), f"{one} would win against {other} and lacks {behind.commit}"
                    assert behind.commit <= log.last_index
        self._counters["logs compared"] += 1

    def applied(self, id_: int, index: int, digest: bytes, entry: Entry | None = None) -> None:
        known = self._digests.setdefault(index, digest)
        assert known == digest, f"{id_}: state machines differ at {index}"
        if entry is not None:
            self._committed.setdefault(index, entry)
        self.highest_applied = max(self.highest_applied, index)

    def configurations(self, nodes: Iterable[RaftNode]) -> list[tuple[int, ...]]:
        """The voters of every configuration that may hold: the newest committed and later ones."""
        histories = [(node._core.log.commit, node._core.history._items) for node in nodes]
        newest = max(index for commit, items in histories for index, _ in items if index <= commit)
        found: list[tuple[int, ...]] = []
        for _, items in histories:
            for index, configuration in items:
                if index >= newest and configuration.voters not in found:
                    found.append(configuration.voters)
        return found

    def summary(self) -> dict[str, int]:
        return {"terms with a leader": len(self._leaders), "entries applied": self.highest_applied}
