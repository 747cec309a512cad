"""The follower: it obeys the leader of its term and acknowledges what its disk holds.

Owns: becoming a follower, and the answers to AppendEntries, Heartbeat, InstallSnapshot. What makes
it a candidate is in candidate.py.
"""

from __future__ import annotations

from raftkv.raft.core import Core
from raftkv.raft.effects import Role
from raftkv.raft.membership import Configuration
from raftkv.raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
)

__all__ = [
    "become_follower",
    "forget_leader",
    "handle_append_entries",
    "handle_heartbeat",
    "handle_install_snapshot",
]


FORGET_TICKS_MAX = 3


def become_follower(core: Core, term: int, leader: int) -> None:
    """leader 0: not known yet."""
    assert leader != core.id
    core.reset(term)
    core.enter(Role.FOLLOWER)
    core.leader = leader
    if leader:
        core.eager = False


def forget_leader(core: Core) -> None:
    """The leader is likely gone: its connection ended. Let the next one be elected soon.

    Without this a dead leader keeps its lease in the voters' eyes, and they ignore candidates for
    an election timeout. Nothing is risked: if it lives, a majority still hears it and refuses, or
    its next word comes before the campaign. The ticks until then are drawn, so that not all
    followers stand at once.
    """
    if core.role is Role.FOLLOWER and core.leader:
        core.leader = 0
        soon = core.election_timeout - core.rng.randint(1, FORGET_TICKS_MAX)
        core.election_elapsed = max(core.election_elapsed, soon)


def _heard(core: Core, leader: int) -> None:
    assert core.leader in (0, leader), f"two leaders in term {core.term}: {core.leader}, {leader}"
    core.leader = leader
    core.election_elapsed = 0
    core.eager = False


def handle_append_entries(core: Core, message: AppendEntries) -> None:
    """Paper figure 2, AppendEntries RPC, rules 2 to 5."""
    _heard(core, message.sender)
    log = core.log
    prev_index = message.prev_index
    if prev_index < log.commit:
        _accept(core, message, log.commit)  # an old message; all up to the commit index matches
        return
    if log.term_at(prev_index) != message.prev_term:
        _reject(core, message)
        return
    entries = message.entries
    last = prev_index
    if entries:
        last = entries[-1].index
        position = log.find_conflict(entries)
        if position is not None:
            first_new = entries[position].index
            if first_new <= log.last_index:
                core.truncate_log_from(first_new)
            core.append_to_log(entries[position:] if position else entries)
    log.commit_to(min(message.commit, last))
    _accept(core, message, last)


def _accept(core: Core, message: AppendEntries, index: int) -> None:
    if message.reply:
        _acknowledge(core, message.sender, index)


def _acknowledge(core: Core, leader: int, index: int) -> None:
    """Promise that the log is durable up to `index`.

    Acknowledgements of one batch melt into one: within a term the leader's log only grows, so the
    highest says it all.
    """
    outbox = core.after_sync
    if outbox:
        last = outbox[-1]
        if type(last) is AppendResponse and not last.rejected and last.term == core.term:
            assert last.to == leader
            index = max(index, last.index)
            outbox.pop()
    outbox.append(AppendResponse(leader, core.id, core.term, index, False, 0, 0))


def _reject(core: Core, message: AppendEntries) -> None:
    """Tell where the logs may match, skipping whole terms: what is here of terms above the
    leader's at that place cannot match (paper 5.3, last paragraphs)."""
    hint, term = core.log.last_index_with_term_at_most(message.prev_index, message.prev_term)
    assert hint <= message.prev_index
    core.after_sync.append(
        AppendResponse(message.sender, core.id, core.term, message.prev_index, True, hint, term)
    )


def handle_heartbeat(core: Core, message: Heartbeat) -> None:
    _heard(core, message.sender)
    core.log.commit_to(message.commit)
    core.before_sync.append(HeartbeatResponse(message.sender, core.id, core.term, message.sequence))


def handle_install_snapshot(core: Core, message: InstallSnapshot) -> None:
    """Take the snapshot unless the log already has all of it."""
    _heard(core, message.sender)
    log, meta = core.log, message.snapshot.meta
    if meta.index > log.commit:
        if log.term_at(meta.index) == meta.term:
            log.commit_to(meta.index)  # only news: the entries are here
        else:
            log.install(message.snapshot)
            core.replace_configuration(meta.index, Configuration(meta.voters, meta.learners))
            core.snapshot_unsaved = True
    assert log.commit >= meta.index
    _acknowledge(core, message.sender, log.commit)
