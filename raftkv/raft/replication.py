"""What a leader sends to each member: entries, commit news, snapshots, read rounds.

Owns: the decision what one member lacks, by the state of its progress, and the messages for it.
Never does: interpret answers (leader.py).
"""

from __future__ import annotations

from raftkv.raft.core import Core
from raftkv.raft.messages import AppendEntries, Entry, Heartbeat, InstallSnapshot, Snapshot
from raftkv.raft.progress import Progress, State

__all__ = ["flush", "nudge"]

_NO_ENTRIES: list[Entry] = []


def flush(core: Core) -> None:
    """Send every member what it lacks and its window allows, and begin the next read round."""
    core.flush_due = core.news_held = False
    for member, peer in core.progress.items():
        state = peer.state
        if state is State.REPLICATE:
            _replicate(core, member, peer)
        elif state is State.PROBE and not peer.probe_sent:
            _send_append(core, member, peer)
    if core.reads.wants_round:
        _begin_read_round(core)


def _replicate(core: Core, member: int, peer: Progress) -> None:
    last, commit = core.log.last_index, core.log.commit
    while peer.next <= last and not peer.inflights.full:
        before = peer.next
        _send_append(core, member, peer)
        if peer.state is not State.REPLICATE:
            return  # what it needs was compacted
        assert peer.next > before
    if peer.commit_sent < commit:
        # Nothing else to send, or the window is full: the commit index goes alone. Its loss does
        # no harm, the next heartbeat carries it too; so no answer is asked for.
        _send_empty(core, member, peer, reply=False)


def _send_append(core: Core, member: int, peer: Progress) -> None:
    """One message with the next entries (a probe may have none), or else a snapshot."""
    log = core.log
    prev_index = peer.next - 1
    prev_term = log.term_at(prev_index)
    if prev_term is None:
        _send_snapshot(core, member, peer)
        return
    if peer.next <= log.last_index:
        entries = log.slice(peer.next, log.last_index, core.config.max_append_bytes)
        size = len(entries[0].data) if len(entries) == 1 else sum(len(e.data) for e in entries)
        last = entries[-1].index
    else:
        entries, size, last = _NO_ENTRIES, 0, prev_index
    commit = log.commit
    core.before_sync.append(
        AppendEntries(member, core.id, core.term, prev_index, prev_term, commit, True, entries)
    )
    peer.commit_sent = commit
    peer.sent(last, size)


def _send_empty(core: Core, member: int, peer: Progress, *, reply: bool) -> None:
    log = core.log
    prev_index = peer.next - 1
    prev_term = log.term_at(prev_index)
    if prev_term is None:
        return  # compacted since it was sent: the next answer or nudge sorts it out
    peer.commit_sent = log.commit
    core.before_sync.append(
        AppendEntries(
            member, core.id, core.term, prev_index, prev_term, log.commit, reply, _NO_ENTRIES
        )
    )


def _send_snapshot(core: Core, member: int, peer: Progress) -> None:
    """Only to members that are heard of: to others the work would be in vain."""
    meta = core.log.snapshot_meta
    assert meta is not None, "entries were compacted without a snapshot"
    assert meta.index >= core.log.offset
    if not peer.active:
        peer.become_probe()
        peer.probe_sent = True  # its answer to a heartbeat makes it active and lets it go on
        return
    core.before_sync.append(InstallSnapshot(member, core.id, core.term, Snapshot(meta, b"")))
    peer.become_snapshot(meta.index)


def nudge(core: Core, member: int, peer: Progress) -> None:
    """The member answered a tick's heartbeat, so it is there: if it lags, find out why.

    All messages of a full window, or all their answers, may have been lost; an empty request at
    the end of what was sent brings either an acknowledgement or a rejection.
    """
    if peer.state is State.PROBE:
        peer.probe_sent = False
        core.flush_due = True
    elif peer.state is State.REPLICATE and peer.match < core.log.last_index:
        if peer.next <= core.log.last_index and not peer.inflights.full:
            core.flush_due = True
        elif core.log.term_at(peer.next - 1) is not None:
            _send_empty(core, member, peer, reply=True)
        else:
            peer.become_probe()
            core.flush_due = True


def _begin_read_round(core: Core) -> None:
    sequence = core.reads.begin_round()
    commit = core.log.commit
    for member in core.configuration.voters:
        if member != core.id:
            known = min(core.progress[member].match, commit)
            core.before_sync.append(Heartbeat(member, core.id, core.term, known, sequence))
