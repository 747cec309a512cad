"""The chain that every request goes through, in order, and the one place where errors end.

    parse -> authenticate -> impersonate -> authorise -> take a seat -> route
          -> handler (admit, validate, store)

Owns: the mapping of failures to answers. Expected failures are ApiErrors, raised anywhere below
and answered here as Status objects. What a handler did not foresee of its input (a TypeError, a
KeyError...) is logged and answered as 500. A broken invariant (AssertionError) ends the server.
"""

from __future__ import annotations

import logging
from urllib.parse import unquote

import orjson
import trio

from k8slite.api.status import ApiError, bad_request
from k8slite.apiserver.aggregation.proxy import AGGREGATOR, pass_to_server
from k8slite.apiserver.aggregation.remotes import Service
from k8slite.apiserver.auth.authorize import attributes_of, refusal
from k8slite.apiserver.auth.rbac import Attributes
from k8slite.apiserver.call import Call, User
from k8slite.apiserver.core import Core
from k8slite.apiserver.http.message import Request, Response, StreamResponse, UpgradeResponse
from k8slite.apiserver.paths import serve_path
from k8slite.apiserver.requestinfo import RequestInfo, request_info
from k8slite.apiserver.routes import Handler, route
from k8slite.streaming.upgrade import is_upgrade
from raftkv.errors import KvError, NotApplied, UnknownOutcome

__all__ = ["Pipeline"]

log = logging.getLogger(__name__)

Answer = Response | StreamResponse | UpgradeResponse
UNFORESEEN = (
    TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError,
)  # fmt: skip
_DOCUMENTS = "/openapi/v3/"
_LONG = frozenset(("watch", "connect"))
_UNBOUNDED = frozenset(("get", "list", "watch", "connect"))
"""Reads bound their own waits for the store; logs may follow for ever."""
DEPRECATED = {
    "componentstatuses": "v1 ComponentStatus is deprecated in v1.19+",
    "endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}
"""What every answer about these resources warns of."""


_IMPERSONATE_EXTRA = b"impersonate-extra-"


class Pipeline:
    """Answers requests. Stateless but for what `core` holds."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def handle(self, request: Request) -> Answer:
        """The answer to a request; never raises for what a client sent."""
        started, audit = trio.current_time(), self._core.audit
        info = request_info(request)
        if audit is not None:
            request.received_at = self._core.now()
        try:
            answer = await self._answer(request, info)
        except ApiError as error:
            answer = _refusal(error)
        except KvError as error:
            answer = _refusal(_store_error(error))
        except UNFORESEEN as error:
            log.exception("unforeseen method=%s path=%s", request.method, request.path)
            answer = _refusal(ApiError(500, "InternalError", f"Internal error occurred: {error!r}"))
        status = answer.status if not isinstance(answer, UpgradeResponse) else 101
        if info.verb not in _LONG:
            seconds = trio.current_time() - started
            known = self._core.kinds.find(info.group, info.version, info.resource)
            self._core.metrics.observe(info.verb, known, info.subresource, status, seconds)
        if audit is not None:
            audit.end(request, info, answer)
        return answer

    async def _answer(self, request: Request, info: RequestInfo) -> Answer:
        core = self._core
        user = await self._let_in(request, info)
        seat = await core.flow.take_seat(user, info)
        try:
            return await self._serve(request, info, user)
        finally:
            if seat is not None:
                seat.leave()

    async def _serve(self, request: Request, info: RequestInfo, user: User) -> Answer:
        core = self._core
        remote = self._remote(info)
        if remote is not None:
            if info.path.startswith(_DOCUMENTS):
                user = AGGREGATOR
            return await self._pass_on(request, info, user, remote)
        if not info.is_resource:
            return await serve_path(core, request, info)
        handler, kind = route(core.kinds, info)
        call = Call(core, request, info, user, kind)
        if kind.resource in DEPRECATED:
            call.warn(DEPRECATED[kind.resource])
        try:
            answer = await self._within_its_time(handler, call)
        except ApiError as error:
            answer = _refusal(error)
        answer.headers += call.headers()
        return answer

    def _remote(self, info: RequestInfo) -> Service | None:
        """Who else is to answer."""
        if info.is_resource:
            return self._core.remotes.find(info.group, info.version)
        if info.path.startswith(("/apis/", _DOCUMENTS)):
            parts = info.path.removeprefix(_DOCUMENTS).strip("/").split("/")
            if len(parts) == 3 and parts[0] == "apis":
                return self._core.remotes.find(parts[1], parts[2])
        return None

    async def _pass_on(
        self, request: Request, info: RequestInfo, user: User, remote: Service
    ) -> Answer:
        core = self._core
        if info.verb in _LONG or is_upgrade(request.headers):
            return await pass_to_server(core, request, user, remote)
        with trio.move_on_after(core.config.request_seconds):
            return await pass_to_server(core, request, user, remote)
        raise _too_late()

    async def _within_its_time(self, handler: Handler, call: Call) -> Answer:
        if call.info.verb in _UNBOUNDED:
            return await handler(call)
        with trio.move_on_after(self._core.config.request_seconds) as scope:
            return await handler(call)
        assert scope.cancelled_caught
        raise _too_late()

    async def _let_in(self, request: Request, info: RequestInfo) -> User:
        """Who asks, if they may. Raises ApiError 401, 403.

        What was granted through another server a moment ago may not be mirrored here yet: so a
        refusal is told only when fresh state confirms it (or none can be had).
        """
        try:
            return await self._identify(request, info)
        except ApiError as refused:
            before = self._core.mirror.revision
            try:
                if await self._core.mirror.wait_fresh() == before:
                    raise
            except ApiError:
                raise refused from None
        return await self._identify(request, info)

    async def _identify(self, request: Request, info: RequestInfo) -> User:
        core = self._core
        user = await core.authenticator.authenticate(request, core.now())
        if core.audit is not None:
            core.audit.begin(request, info, user)
        if b"impersonate-user" in request.headers:
            user = await self._impersonate(request, user)
            if request.audit is not None:
                request.audit.as_user(user)
        asked = attributes_of(info)
        decision = await core.authorizer.decide(user, asked)
        if core.audit is not None:
            core.audit.decided(request, decision)
        if not decision.allowed:
            raise refusal(user, asked, decision.reason)
        return user

    async def _impersonate(self, request: Request, user: User) -> User:
        """Act as another user, if the real one may. Raises ApiError 403."""
        name = request.header(b"impersonate-user")
        groups = [g.strip() for g in request.header(b"impersonate-group").split(",") if g.strip()]
        asked = [Attributes("impersonate", resource="users", name=name)]
        if name.startswith("system:serviceaccount:"):
            parts = name.split(":")
            if len(parts) != 4:
                raise bad_request(f"invalid service account user name {name!r}")
            asked = [
                Attributes(
                    "impersonate", resource="serviceaccounts", namespace=parts[2], name=parts[3]
                )
            ]
            groups += ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"]
        asked += [Attributes("impersonate", resource="groups", name=group) for group in groups]
        uid, group, extra = request.header(b"impersonate-uid"), "authentication.k8s.io", {}
        if uid:
            asked.append(Attributes("impersonate", group, "uids", name=uid))
        for header, value in request.headers.items():
            if header.startswith(_IMPERSONATE_EXTRA):
                key = unquote(header[len(_IMPERSONATE_EXTRA) :].decode("latin-1"))
                extra[key] = tuple(v.strip() for v in value.decode("latin-1").split(","))
                asked += [
                    Attributes("impersonate", group, "userextras", key, name=each)
                    for each in extra[key]
                ]
        for attributes in asked:
            if not (await self._core.authorizer.decide(user, attributes)).allowed:
                raise refusal(user, attributes)
        everyone = (
            "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
        )
        if everyone not in groups:
            groups.append(everyone)
        return User(name, uid, tuple(groups), extra)


def _too_late() -> ApiError:
    text = "Timeout: request did not complete within the allotted timeout"
    return ApiError(504, "Timeout", text, {})


def _refusal(error: ApiError) -> Response:
    if error.reason == _PAGE_NOT_FOUND:
        return Response(404, b"404 page not found\n", b"text/plain; charset=utf-8")
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if error.retry_after:
        headers = ((b"Retry-After", str(error.retry_after).encode()),)
    return Response(error.code, orjson.dumps(error.to_status()), headers=headers)


_PAGE_NOT_FOUND = "PageNotFound"


def _store_error(error: KvError) -> ApiError:
    """What a store that did not answer means to a client."""
    if isinstance(error, NotApplied):
        return ApiError(503, "ServiceUnavailable", f"the store is not available: {error}", None, 1)
    if isinstance(error, UnknownOutcome):
        return ApiError(504, "Timeout", f"Timeout: {error}", {})
    return ApiError(500, "", str(error))
