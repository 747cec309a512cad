"""The state that all roles share, and the transitions between roles.

Owns: term, vote, leader, role, log, membership history, outboxes. The role files act on it:
they are functions over a Core, one file a role. Only RaftNode (node.py) is public.
Assumes: nothing about time but ticks. Never does: I/O.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from raftkv.raft.config import RaftConfig, Restored
from raftkv.raft.effects import Role
from raftkv.raft.log import RaftLog
from raftkv.raft.membership import Configuration, History, encode
from raftkv.raft.messages import MEMBERSHIP, Entry, HardState, Message
from raftkv.raft.progress import Progress
from raftkv.raft.reads import Reads

__all__ = ["TRANSITIONS", "Core"]

# Paper figure 4, with the pre-candidate of thesis 9.6.
TRANSITIONS: dict[Role, tuple[Role, ...]] = {
    Role.FOLLOWER: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE),
    Role.PRE_CANDIDATE: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE),
    Role.CANDIDATE: (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER),
    Role.LEADER: (Role.FOLLOWER,),
}


class Core:
    __slots__ = (
        "after_sync",
        "before_sync",
        "config",
        "configuration",
        "durable",
        "eager",
        "election_elapsed",
        "election_timeout",
        "flush_due",
        "handed_state",
        "heartbeat_elapsed",
        "history",
        "id",
        "leader",
        "log",
        "news_held",
        "outstanding_ticks",
        "progress",
        "quorum_elapsed",
        "reads",
        "rng",
        "role",
        "snapshot_unsaved",
        "term",
        "term_start_index",
        "transfer_elapsed",
        "transferee",
        "uncommitted_bytes",
        "vote",
        "votes",
    )

    def __init__(
        self, config: RaftConfig, restored: Restored, voters: Sequence[int], rng: random.Random
    ) -> None:
        self.config = config
        self.id = config.id
        self.rng = rng
        self.log = RaftLog(restored)
        self.history = _history(restored)
        self.configuration = self.history.current
        self.term = restored.hard_state.term
        self.vote = restored.hard_state.vote
        self.handed_state = self.durable = restored.hard_state  # given to the shell; on its disk
        self.role = Role.FOLLOWER
        self.leader = 0
        self.election_elapsed = 0  # ticks since a leader's word, a vote given, or a campaign
        self.election_timeout = 0
        self.eager = config.campaign_at_start
        self.votes: dict[int, bool] = {}
        self.progress: dict[int, Progress] = {}
        self.heartbeat_elapsed = 0
        self.quorum_elapsed = 0
        self.transferee = 0
        self.transfer_elapsed = 0
        self.term_start_index = 0
        self.uncommitted_bytes = 0
        self.reads = Reads()
        self.flush_due = False  # the leader may have something to send
        self.news_held = False  # followers do not know the commit index, and may wait for it
        self.before_sync: list[Message] = []
        self.after_sync: list[Message] = []
        self.snapshot_unsaved = False
        self.outstanding_ticks = 0
        if self.log.last_term > self.term:
            # A write torn between entries and hard state. No vote of that term can have left this
            # member: it would have been on the disk before.
            self.term, self.vote = self.log.last_term, 0
        if restored.empty and voters:
            self._bootstrap(Configuration(tuple(sorted(set(voters)))))
        self.draw_election_timeout()
        if not restored.empty and config.pre_vote and config.check_quorum:
            self._hurry()

    def _hurry(self) -> None:
        """Stand soon after a restart, for nobody is known to lead.

        If somebody does lead, the others refuse the pre-vote and nothing is disturbed. If all have
        been away, they would wait a whole election timeout for nothing. The ticks are drawn, so
        that not all stand at once.
        """
        self.eager = True
        soon = self.rng.randint(1, self.config.election_ticks)
        self.election_elapsed = self.election_timeout - soon

    def _bootstrap(self, configuration: Configuration) -> None:
        """Begin the log, alike on every first voter: entry 1 of term 1 is the membership.

        So it is replicated to members that join later, and a restart finds it in the log
        whatever the command line says then.
        """
        if self.id not in configuration.voters:
            raise ValueError(f"member {self.id} is not among the voters {configuration.voters}")
        self.term = max(self.term, 1)
        self.append_to_log([Entry(1, 1, MEMBERSHIP, encode(configuration))])
        self.log.commit_to(1)

    # -- transitions --------------------------------------------------------------------------

    def enter(self, role: Role) -> None:
        assert role in TRANSITIONS[self.role], f"{self.role} may not become {role}"
        self.role = role

    def reset(self, term: int) -> None:
        """Begin anew in `term`: what belongs to a term or a role is forgotten."""
        assert term >= self.term
        if term > self.term:
            self.term = term
            self.vote = 0
        if self.role is Role.LEADER:
            self.reads.fail_all()
        self.leader = 0
        self.votes.clear()
        self.progress.clear()
        self.transferee = 0
        self.flush_due = self.news_held = False
        self.election_elapsed = self.heartbeat_elapsed = self.quorum_elapsed = 0
        self.draw_election_timeout()

    def draw_election_timeout(self) -> None:
        ticks = self.config.election_ticks
        self.election_timeout = self.rng.randint(ticks, 2 * ticks - 1)

    def commit_news(self) -> None:
        """A follower does not know the commit index."""
        if self.config.hold_commit_news:
            self.news_held = True
        else:
            self.flush_due = True

    # -- log and membership -------------------------------------------------------------------

    def append_to_log(self, entries: Sequence[Entry]) -> None:
        self.log.append(entries)
        if self.history.append(entries):
            self.configuration = self.history.current

    def truncate_log_from(self, index: int) -> None:
        self.log.truncate_from(index)
        if self.history.truncate_from(index):
            self.configuration = self.history.current

    def replace_configuration(self, index: int, configuration: Configuration) -> None:
        """A snapshot at `index` replaced the log."""
        self.history = History(index, configuration)
        self.configuration = configuration

    @property
    def promotable(self) -> bool:
        """A learner, a stranger, or one whose snapshot is not saved yet must not campaign.

        But a voter whose removal is in its log and not committed must (thesis 4.2.2): it may be
        the only one whose log is complete, and the others cannot be elected without its vote. It
        then leads without counting itself, until its removal is committed.
        """
        if self.snapshot_unsaved:
            return False
        if self.id in self.configuration.voters:
            return True
        return self.id in self.history.at(self.log.commit).voters

    @property
    def alone(self) -> bool:
        """This node by itself is a majority."""
        return self.configuration.voters == (self.id,)

    # -- hard state ---------------------------------------------------------------------------

    @property
    def vote_changed(self) -> bool:
        handed = self.handed_state
        return self.term != handed.term or self.vote != handed.vote

    def take_hard_state(self) -> HardState | None:
        """The record to write, if it changed.

        Its commit index stays within what is durable, so that a torn write can never leave a
        commit index beyond the log: that remains the sure sign of a lost log.
        """
        commit = min(self.log.commit, self.log.stable)
        handed = self.handed_state
        commit = max(commit, handed.commit)
        if self.term == handed.term and self.vote == handed.vote and commit == handed.commit:
            return None
        assert self.term >= handed.term
        self.handed_state = HardState(self.term, self.vote, commit)
        return self.handed_state


def _history(restored: Restored) -> History:
    meta = restored.snapshot_meta
    if meta is None:
        history = History(0, Configuration(()))
        history.append(restored.entries)
    else:
        history = History(meta.index, Configuration(meta.voters, meta.learners))
        history.append([entry for entry in restored.entries if entry.index > meta.index])
    return history
