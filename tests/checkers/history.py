"""What clients asked and what they were told: the raw material of the checkers.

An operation has a time of call and, if it was answered, one of return. Its outcome is `ok`,
`failed` (certainly without effect) or `unknown` (it may take effect at any time after its call, or
never). Values written are unique, so that a value read names its write.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any

__all__ = ["History", "Operation", "Outcome"]


class Outcome(enum.Enum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(eq=False)
class Operation:
    """One request of one client. Times in virtual seconds.

    `kind` and `argument`: ("put", value), ("delete", None), ("get", None), ("peek", None), a read
    that may be of an old state, ("list", (end, limit, revision)), a range from `key` on, and
    ("cas", (mod revision expected, value)), which writes where the key's mod revision is the
    expected one, 0 for an absent key.
    `result`: of a get (value, mod revision) or None; of a cas whether it wrote; of a delete
    whether there was a key; of a list ([(key, value, mod revision)], count, more). `revision`: the
    store's revision in the answer; None where unknown.
    """

    client: int
    kind: str
    key: bytes
    argument: Any
    called: float
    returned: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    result: Any = None
    revision: int | None = None

    @property
    def value(self) -> bytes | None:
        """What it writes, where it writes something."""
        written: bytes | None = None
        if self.kind == "put":
            written = self.argument
        elif self.kind == "cas":
            written = self.argument[1]
        return written

    @property
    def wrote(self) -> bool:
        """Whether it certainly changed the store."""
        return self.outcome is Outcome.OK and (
            self.kind == "put" or (self.kind in ("cas", "delete") and bool(self.result))
        )

    def ok(self, now: float, result: Any, revision: int | None) -> None:
        self.returned, self.outcome, self.result, self.revision = now, Outcome.OK, result, revision

    def failed(self, now: float) -> None:
        self.returned, self.outcome = now, Outcome.FAILED

    def __str__(self) -> str:
        return (
            f"client {self.client} {self.kind} {self.key!r} {_short(self.argument)} "
            f"[{self.called:.4f}, {self.returned:.4f}] {self.outcome.value} "
            f"{_short(self.result)} revision {self.revision}"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}...{len(text)}"


@dataclass
class History:
    """All operations of a run, by time of call."""

    operations: list[Operation] = field(default_factory=list)

    def begin(
        self, now: float, client: int, kind: str, key: bytes, argument: Any = None
    ) -> Operation:
        operation = Operation(client, kind, key, argument, now)
        self.operations.append(operation)
        return operation

    def count(self, outcome: Outcome) -> int:
        return sum(operation.outcome is outcome for operation in self.operations)
