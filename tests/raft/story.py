"""Golden traces: a story of commands with the complete structured output after each.

A story is a text file. Lines that begin with `$ ` are commands, `#` are remarks; all else is output
and is compared. `pytest tests/raft/test_golden.py --regenerate-traces` writes them anew; then the
diff is to be read, line by line. `$ quietly COMMAND` shows nothing (well-known beginnings).

    $ voters 1 2 3 [option=number ...]      $ join 4          $ restart 1   (unsynced: lost)
    $ campaign 1    $ tick 1 [count]        $ propose 1 word...
    $ read 1 7      $ transfer 1 2          $ change 1 add-learner 4
    $ take 1        $ persist 1             $ run 1           (take and persist until all is done)
    $ deliver 2     $ drop 2                $ settle [1 2 3]
    $ cut 1 2       $ heal                  $ snapshot 1 [keep_behind]
    $ unreachable 1 2                       $ snapshot-sent 1 3 ok|failed
    $ gone 3 1 (1's connection ended at 3)  $ status 1 2 3
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftkv.raft import Change, ChangeKind, Effects, Entry, Message, RaftError
from raftkv.raft.membership import decode
from tests.raft.cluster import Cluster


class Story:
    def __init__(self) -> None:
        self.cluster = Cluster(1)
        self.lines: list[str] = []

    def run(self, text: str) -> str:
        """The text with all output made anew."""
        for line in text.splitlines():
            if line.startswith("#"):
                self.lines.append(line)
            elif line.startswith("$ "):
                if self.lines and not self.lines[-1].startswith("#"):
                    self.lines.append("")
                self.lines.append(line)
                self.command(*line[2:].split())
        return "\n".join(self.lines) + "\n"

    def command(self, name: str, *arguments: str) -> None:
        if name == "quietly":
            before = len(self.lines)
            self.command(*arguments)
            del self.lines[before:]
            return
        try:
            COMMANDS[name](self, *arguments)
        except RaftError as error:
            self.say(f"{type(error).__name__}: {error}")

    def say(self, line: str) -> None:
        self.lines.append("  " + line)

    # -- commands -----------------------------------------------------------------------------

    def voters(self, *arguments: str) -> None:
        ids = tuple(int(a) for a in arguments if "=" not in a)
        options = {k: int(v) for k, v in (a.split("=") for a in arguments if "=" in a)}
        self.cluster = Cluster(voters=ids, **options)
        self.cluster.observer = self.show_effects

    def join(self, member: str) -> None:
        self.cluster.add(int(member))

    def restart(self, member: str) -> None:
        self.cluster.start(int(member))

    def campaign(self, member: str) -> None:
        core = self.cluster.core(int(member))
        for id_ in self.cluster.nodes:
            other = self.cluster.core(id_)
            other.election_elapsed = max(other.election_elapsed, core.config.election_ticks)
        self.cluster.nodes[int(member)].campaign()

    def tick(self, member: str, count: str = "1") -> None:
        self.cluster.tick(int(member), int(count))

    def propose(self, member: str, *words: str) -> None:
        for word in words:
            index, term = self.cluster.nodes[int(member)].propose(word.encode())
            self.say(f"at {index}/{term}")

    def read(self, member: str, read_id: str) -> None:
        self.cluster.nodes[int(member)].read_index(int(read_id))

    def transfer(self, member: str, to: str) -> None:
        self.cluster.nodes[int(member)].transfer_leadership(int(to))

    def change(self, member: str, kind: str, target: str) -> None:
        change = Change(ChangeKind[kind.upper().replace("-", "_")], int(target))
        index, term = self.cluster.nodes[int(member)].propose_membership(change)
        self.say(f"at {index}/{term}")

    def take(self, member: str) -> None:
        self.cluster.take(int(member))

    def persist(self, member: str) -> None:
        self.cluster.persist(int(member))

    def run_member(self, member: str) -> None:
        self.cluster.run(int(member))

    def deliver(self, member: str) -> None:
        for message in self.cluster.deliver(int(member)):
            self.say(f"{message.to} got {describe(message)}")

    def drop(self, member: str) -> None:
        for message in self.cluster.deliver(int(member), drop=True):
            self.say(f"lost {describe(message)}")

    def settle(self, *members: str) -> None:
        self.cluster.settle(*(int(m) for m in members))

    def cut(self, one: str, other: str) -> None:
        self.cluster.cut |= {(int(one), int(other)), (int(other), int(one))}

    def heal(self) -> None:
        self.cluster.heal()

    def snapshot(self, member: str, keep_behind: str = "0") -> None:
        meta = self.cluster.snapshot(int(member), int(keep_behind)).meta
        self.say(f"{meta.index}/{meta.term} voters={list(meta.voters)}")

    def unreachable(self, member: str, peer: str) -> None:
        self.cluster.nodes[int(member)].report_unreachable(int(peer))

    def snapshot_sent(self, member: str, peer: str, fate: str) -> None:
        self.cluster.nodes[int(member)].report_snapshot(int(peer), fate == "ok")

    def gone(self, member: str, peer: str) -> None:
        self.cluster.nodes[int(member)].report_gone(int(peer))

    def status(self, *members: str) -> None:
        for member in members:
            s = self.cluster.nodes[int(member)].status()
            self.say(
                f"{s.id} {s.role.value} term={s.term} vote={s.vote} leader={s.leader} "
                f"commit={s.commit} stable={s.stable_index} log={s.first_index}..{s.last_index} "
                f"voters={list(s.voters)} learners={list(s.learners)}"
            )
            for id_, peer in s.progress.items():
                active = "" if peer.active else " silent"
                self.say(f"    {id_}: {peer.state} match={peer.match} next={peer.next}{active}")

    # -- output -------------------------------------------------------------------------------

    def show_effects(self, id_: int, effects: Effects) -> None:
        self.say(f"{id_} batch{'' if effects.must_sync else ' (no sync)'}:")
        if effects.hard_state is not None:
            term, vote, commit = effects.hard_state
            self.say(f"  hard state: term={term} vote={vote} commit={commit}")
        if effects.snapshot is not None:
            self.say(f"  snapshot: {effects.snapshot.meta.index}/{effects.snapshot.meta.term}")
        for entry in effects.entries:
            self.say(f"  entry: {show_entry(entry)}")
        for message in effects.messages_before_sync:
            self.say(f"  send: {describe(message)}")
        for message in effects.messages_after_sync:
            self.say(f"  send after sync: {describe(message)}")
        for entry in effects.committed:
            self.say(f"  apply: {show_entry(entry)}")
        for read_id, index in effects.reads:
            self.say(f"  read: {read_id} at {index}")
        for read_id in effects.failed_reads:
            self.say(f"  read failed: {read_id}")


def show_entry(entry: Entry) -> str:
    if entry.kind:
        voters, learners = decode(entry.data)[0]
        return f"{entry.index}/{entry.term} voters={list(voters)} learners={list(learners)}"
    return f"{entry.index}/{entry.term} {entry.data.decode() or '(no-op)'}"


def describe(message: Message) -> str:
    """`1->2 AppendEntries term=2 ...`"""
    fields = []
    names: tuple[str, ...] = message._fields[3:]
    values: tuple[Any, ...] = message[3:]
    for name, value in zip(names, values, strict=True):
        if name == "entries":
            value = "[" + ", ".join(show_entry(entry) for entry in value) + "]"
        elif name == "snapshot":
            value = f"{value.meta.index}/{value.meta.term}"
        fields.append(f"{name}={value}")
    rest = " ".join([f"term={message.term}", *fields])
    return f"{message.sender}->{message.to} {type(message).__name__} {rest}"


COMMANDS: dict[str, Callable[..., None]] = {
    "voters": Story.voters,
    "join": Story.join,
    "restart": Story.restart,
    "campaign": Story.campaign,
    "tick": Story.tick,
    "propose": Story.propose,
    "read": Story.read,
    "transfer": Story.transfer,
    "change": Story.change,
    "take": Story.take,
    "persist": Story.persist,
    "run": Story.run_member,
    "deliver": Story.deliver,
    "drop": Story.drop,
    "settle": Story.settle,
    "cut": Story.cut,
    "heal": Story.heal,
    "snapshot": Story.snapshot,
    "unreachable": Story.unreachable,
    "snapshot-sent": Story.snapshot_sent,
    "gone": Story.gone,
    "status": Story.status,
}
