"""Bugs to plant into the core, each a known mistake, so that the swarm can show that it finds them.

python -m tests.raft.planted [SEEDS]     find the first seed that notices each one

FOUND_BY holds those seeds. Any change of the core moves them, and then others find the bug.
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


def _use_the_read_id_again(core: Core) -> None:
    core.reads.sequence = 0
    for peer in core.progress.values():
        peer.read_sequence = 0
    _begin_read_round(core)


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
_begin_read_round = replication._begin_read_round
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
    "a read id is used again": (replication, "_begin_read_round", _use_the_read_id_again),
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


FOUND_BY: dict[str, int] = {
    "vote is not remembered": 1,
    "vote for any log": 1,
    "one acknowledgement is enough": 1,
    "truncate without a conflict": 3,
    "commit older terms by counting": 1,
    "own log counts before its sync": 1,
    "append ABA": 16,
    "any answer confirms all reads": 2,
    "a read id is used again": 933,
    "reads without a round": 2,
    "commit beyond the last new entry": 7,
    "membership is not taken back": 10,
    "lost windows stay lost": 7,
    "snapshots are never sent": 3,
}


def is_found(name: str, seed: int) -> bool:
    """Whether the seed fails with the bug in."""
    with planted(name):
        try:
            run_seed(seed)
        except (AssertionError, KeyError):
            return True
    return False


SEEDS = 1500


def found_by(name: str) -> int | None:
    """A seed that finds the bug: the known one, or the first other one."""
    seeds = (FOUND_BY[name], *range(1, SEEDS))
    return next((seed for seed in seeds if is_found(name, seed)), None)


if __name__ == "__main__":
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for bug in PLANTED:
        first = next((s for s in range(1, limit + 1) if is_found(bug, s)), None)
        print(f'    "{bug}": {first},', flush=True)
