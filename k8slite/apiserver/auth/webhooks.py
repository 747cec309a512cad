"""Webhooks that say who has a token (TokenReview) and who may do what (SubjectAccessReview).

Answers are kept for a while, refusals for a shorter one, as kube-apiserver does.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import orjson
import trio

from k8slite.api.cel import EvaluationError
from k8slite.api.meta import Obj
from k8slite.apiserver.auth.configuration import Authorizer
from k8slite.apiserver.auth.rbac import Attributes, Decision
from k8slite.apiserver.auth.remote import Remote, RemoteError
from k8slite.apiserver.call import User

__all__ = ["TokenWebhook", "WebhookAuthorizer", "review_of"]

log = logging.getLogger(__name__)

T = TypeVar("T")
ANSWERS_MAX = 1_024
TOKEN_SECONDS = 120.0
TOKEN_TIMEOUT_SECONDS = 30.0


class Kept(Generic[T]):
    """Answers, each for its time; the oldest go when there are too many."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        found = self._answers.get(key)
        return found[1] if found is not None and trio.current_time() < found[0] else None

    def put(self, key: Hashable, answer: T, seconds: float) -> None:
        self._answers[key] = (trio.current_time() + seconds, answer)
        self._answers.move_to_end(key)
        if len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)


async def _review(remote: Remote, review: Obj, seconds: float) -> Obj:
    """The status of a review. Raises RemoteError."""
    try:
        with trio.fail_after(seconds):
            answer = orjson.loads(await remote.send("POST", orjson.dumps(review)))
    except trio.TooSlowError:
        raise RemoteError("context deadline exceeded") from None
    except ValueError as error:
        raise RemoteError(f"its answer is no JSON: {error}") from None
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, dict):
        raise RemoteError("its answer is no review with a status")
    return status


class TokenWebhook:
    """Who has a token, by a webhook's word."""

    def __init__(self, remote: Remote, audiences: tuple[str, ...]) -> None:
        self._remote = remote
        self._audiences = audiences
        self._kept: Kept[User] = Kept()

    async def user_of(self, token: str, audiences: tuple[str, ...]) -> User | None:
        """None for a token that the webhook doesn't know, or when it can't be asked."""
        wanted = audiences or self._audiences
        key = (hashlib.sha256(token.encode()).digest(), wanted)
        known = self._kept.get(key)
        if known is not None:
            return known
        review = {
            "kind": "TokenReview",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {},
            "spec": {"token": token, "audiences": list(wanted)},
        }
        try:
            status = await _review(self._remote, review, TOKEN_TIMEOUT_SECONDS)
        except RemoteError as error:
            log.warning("the token webhook gave no answer: %s", error)
            return None
        given = status.get("audiences")
        if status.get("authenticated") is not True or (given and not {*given} & {*wanted}):
            return None
        info = status.get("user") or {}
        user = User(
            str(info.get("username", "")),
            str(info.get("uid", "")),
            tuple(info.get("groups") or ()),
            {key: tuple(values) for key, values in (info.get("extra") or {}).items()},
        )
        self._kept.put(key, user, TOKEN_SECONDS)
        return user


def review_of(user: User, asked: Attributes) -> Obj:
    """The spec of a SubjectAccessReview."""
    spec: Obj = {"user": user.name}
    if user.uid:
        spec["uid"] = user.uid
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    if asked.path:
        spec["nonResourceAttributes"] = {"path": asked.path, "verb": asked.verb}
        return spec
    given = {
        "namespace": asked.namespace,
        "verb": asked.verb,
        "group": asked.group,
        "version": "*",
        "resource": asked.resource,
        "subresource": asked.subresource,
        "name": asked.name,
    }
    spec["resourceAttributes"] = {key: value for key, value in given.items() if value}
    return spec


class WebhookAuthorizer:
    """One webhook of the chain."""

    def __init__(self, settings: Authorizer, remote: Remote) -> None:
        self._settings = settings
        self._remote = remote
        self._kept: Kept[Decision] = Kept()

    async def decide(self, user: User, asked: Attributes) -> Decision:
        """Allowed, denied, or neither."""
        settings, spec = self._settings, review_of(user, asked)
        try:
            if not all(each.evaluate({"request": spec}) is True for each in settings.conditions):
                return Decision(False)
        except EvaluationError as error:
            return self._failed(f"a match condition failed: {error}")
        key = orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
        known = self._kept.get(key)
        if known is not None:
            return known
        review = {
            "kind": "SubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {},
            "spec": spec,
        }
        try:
            status = await _review(self._remote, review, settings.timeout_seconds)
        except RemoteError as error:
            return self._failed(str(error))
        decision = _decision(status)
        seconds = settings.allowed_seconds if decision.allowed else settings.denied_seconds
        self._kept.put(key, decision, seconds)
        return decision

    def _failed(self, reason: str) -> Decision:
        log.warning("authorization webhook=%s failed: %s", self._settings.name, reason)
        return Decision(False, reason, denied=self._settings.fails_closed)


def _decision(status: dict[str, Any]) -> Decision:
    allowed = status.get("allowed") is True
    denied = status.get("denied") is True and not allowed
    return Decision(allowed, str(status.get("reason") or ""), denied)
