"""Bugs to plant into the core, each a known mistake, so that the swarm can show that it finds them.

python -m tests.raft.planted [SEEDS]     how many seeds each one survives
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from raftkv.raft import HardState, Role, follower, leader, replication
from raftkv.raft.core import Core
from raftkv.raft.log import RaftLog
from raftkv.raft.membership import History
from raftkv.raft.messages import AppendEntries, Entry
from raftkv.raft.node import HANDLERS
from raftkv.raft.reads import Reads
from tests.raft.swarm import run_seed

Bug = tuple[Any, Any, Callable[..., Any]]


def _forget_vote(core: Core) -> HardState | None:
    state = _take_hard_state(core)
    return None if state is None else state._replace(vote=0)


def _truncate_always(log: RaftLog, entries: Sequence[Entry]) -> int | None:
    return 0 if entries and entries[0].index > log.commit else _find_conflict(log, entries)


def _commit_old_terms(core: Core) -> None:
    _become_leader(core)
    core.term_start_index = 0


def _count_own_log_unsynced(log: RaftLog) -> list[Entry]:
    taken = _take_unhanded(log)
    log.stable = log.last_index
    return taken


def _forget_aba(log: RaftLog, index: int) -> None:
    handed = log.handed
    _truncate(log, index)
    log.handed = min(handed, log.last_index + 1)


def _confirm_on_any_answer(core: Core) -> None:
    core.reads.confirm(core.reads.sequence)


def _read_at_once(reads: Reads, read_id: int, commit: int) -> None:
    reads.ready.append((read_id, commit))


def _commit_all(core: Core, message: AppendEntries) -> None:
    _handle_append(core, message)
    core.log.commit_to(min(message.commit, core.log.last_index))


_take_hard_state = Core.take_hard_state
_find_conflict = RaftLog.find_conflict
_become_leader = leader.become_leader
_truncate = RaftLog.truncate_from
_take_unhanded = RaftLog.take_unhanded
_handle_append = follower.handle_append_entries

PLANTED: dict[str, Bug] = {
    "vote is not remembered": (Core, "take_hard_state", _forget_vote),
    "vote for any log": (RaftLog, "is_up_to_date", lambda *_: True),
    "one acknowledgement is enough": (leader, "majority_index", max),
    "truncate without a conflict": (RaftLog, "find_conflict", _truncate_always),
    "commit older terms by counting": (leader, "become_leader", _commit_old_terms),
    "own log counts before its sync": (RaftLog, "take_unhanded", _count_own_log_unsynced),
    "append ABA": (RaftLog, "truncate_from", _forget_aba),
    "any answer confirms all reads": (leader, "_confirm_reads", _confirm_on_any_answer),
    "reads without a round": (Reads, "add", _read_at_once),
    "commit beyond the last new entry": (HANDLERS[Role.FOLLOWER], AppendEntries, _commit_all),
    "membership is not taken back": (History, "truncate_from", lambda *_: False),
    "lost windows stay lost": (leader, "nudge", lambda *_: None),
    "snapshots are never sent": (replication, "_send_snapshot", lambda *_: None),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    owner, attribute, wrong = PLANTED[name]
    if isinstance(owner, dict):
        right = owner[attribute]
        owner[attribute] = wrong
    else:
        right = getattr(owner, attribute)
        setattr(owner, attribute, wrong)
    try:
        yield
    finally:
        if isinstance(owner, dict):
            owner[attribute] = right
        else:
            setattr(owner, attribute, right)


def seeds_survived(name: str, seeds: int) -> int:
    """How many seeds pass with the bug in before one fails."""
    with planted(name):
        for seed in range(1, seeds + 1):
            try:
                run_seed(seed)
            except (AssertionError, KeyError):
                return seed - 1
    return seeds


if __name__ == "__main__":
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for bug in list(PLANTED)[5:]:
        print(f"{seeds_survived(bug, limit):5} {bug}", flush=True)
