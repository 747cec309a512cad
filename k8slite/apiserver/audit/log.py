"""The audit log of one server: who is to be told of, and the file that it is written to.

A request that ends at once has two events, RequestReceived and ResponseComplete; one whose answer
goes on (a watch, a log, a shell) has ResponseStarted between them, and is complete when it ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from k8slite.apiserver.audit.files import LogFile
from k8slite.apiserver.audit.policy import Policy, read_policy
from k8slite.apiserver.audit.record import Answer, Record
from k8slite.apiserver.auth.rbac import Decision
from k8slite.apiserver.call import User
from k8slite.apiserver.config import ApiserverConfig
from k8slite.apiserver.http.message import Request, Response
from k8slite.apiserver.registry.identity import new_uid
from k8slite.apiserver.requestinfo import RequestInfo
from raftkv.host import Host

__all__ = ["AuditLog", "open_audit"]

DECISION, REASON = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
UNAUTHORIZED = 401
IDENT_MAX = 64


class AuditLog:
    """See the module."""

    def __init__(self, policy: Policy, file: LogFile, host: Host) -> None:
        self._policy = policy
        self._file = file
        self._host = host

    def close(self) -> None:
        self._file.close()

    def begin(self, request: Request, info: RequestInfo, user: User) -> None:
        """The user is known. Asked again for the same request, it does nothing."""
        if request.audit is not None:
            return
        decision = self._policy.decide(user, info)
        if decision.level == "None":
            return
        ident = request.header(b"audit-id")[:IDENT_MAX] or new_uid(self._host.rng)
        request.audit = Record(request, info, decision, ident)
        request.audit.of_user(user)
        self._tell(request.audit, "RequestReceived")

    def decided(self, request: Request, decision: Decision) -> None:
        """What the authorizers said."""
        if request.audit is not None:
            request.audit.annotate(DECISION, "allow" if decision.allowed else "forbid")
            request.audit.annotate(REASON, decision.reason)

    def end(self, request: Request, info: RequestInfo, answer: Answer) -> None:
        """The answer is known. One that goes on tells later that it is complete."""
        record = request.audit
        if record is None:
            if isinstance(answer, Response) and answer.status == UNAUTHORIZED:
                self._unknown(request, info, answer)
            return
        answer.headers += ((b"Audit-Id", record.ident.encode("latin-1")),)
        if isinstance(answer, Response):
            self._tell(record, "ResponseComplete", answer)
            return
        self._tell(record, "ResponseStarted", answer)

        def done() -> None:
            self._tell(record, "ResponseComplete", answer)

        answer.run = _then(answer.run, done)
        if answer.abandon is not None:
            answer.abandon = _then(answer.abandon, done)

    def _unknown(self, request: Request, info: RequestInfo, answer: Response) -> None:
        """Nobody knows who asked."""
        decision = self._policy.decide(User(""), info)
        if decision.level != "None":
            record = Record(request, info, decision, new_uid(self._host.rng))
            self._tell(record, "ResponseStarted", answer)

    def _tell(self, record: Record, stage: str, answer: Answer | None = None) -> None:
        now = self._host.now()
        line = record.event(stage, now, answer)
        if line is not None:
            self._file.write(line, now)


def open_audit(config: ApiserverConfig, host: Host) -> AuditLog:
    """As the config says. Raises OSError, and ValueError that names file and field."""
    try:
        policy = read_policy(Path(config.audit_policy).read_text())
    except ValueError as error:
        raise ValueError(f"{config.audit_policy}: {error}") from None
    return AuditLog(policy, LogFile(config.audit_log, config.audit_rotation), host)


def _then(
    run: Callable[..., Awaitable[None]], done: Callable[[], None]
) -> Callable[..., Awaitable[None]]:
    async def both(*arguments: Any) -> None:
        try:
            await run(*arguments)
        finally:
            done()

    return both
