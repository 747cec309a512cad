"""One audited request: the events of its stages (`audit.k8s.io/v1` Event).

Owns what is known of the request so far. Bodies are told as JSON, whatever they came in; what can't
be read is left out.
"""

from __future__ import annotations

from typing import Any

import orjson

from k8slite.api import yaml_codec
from k8slite.api.meta import Obj, format_micro_time
from k8slite.api.protobuf import MAGIC, ProtobufError, read_envelope, read_object
from k8slite.api.schema import type_of_gvk
from k8slite.apiserver.audit.policy import Decision
from k8slite.apiserver.call import User
from k8slite.apiserver.http.message import Request, Response, StreamResponse, UpgradeResponse
from k8slite.apiserver.requestinfo import RequestInfo

__all__ = ["Record", "readable"]

Answer = Response | StreamResponse | UpgradeResponse
_TEXT_MAX = 1024


class Record:
    """See the module."""

    def __init__(self, request: Request, info: RequestInfo, decision: Decision, ident: str) -> None:
        self.ident = ident
        self.decision = decision
        self._request = request
        self._info = info
        self._object: Any = None
        uri = request.path + (f"?{request.query_string}" if request.query_string else "")
        self._event: Obj = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": decision.level,
            "auditID": ident,
            "stage": "",
            "requestURI": uri,
            "verb": info.verb,
            "user": {},
            "sourceIPs": _sources(request),
            "userAgent": request.header(b"user-agent")[:_TEXT_MAX],
        }
        if info.is_resource:
            self._event["objectRef"] = _reference(info)
        self._event["requestReceivedTimestamp"] = format_micro_time(request.received_at)

    def of_user(self, user: User) -> None:
        self._event["user"] = _shown(user)

    def as_user(self, user: User) -> None:
        """Whom the user acts as."""
        self._event["impersonatedUser"] = _shown(user)

    def annotate(self, key: str, value: str) -> None:
        self._event.setdefault("annotations", {})[key] = value

    def event(self, stage: str, now: float, answer: Answer | None = None) -> bytes | None:
        """The line of a stage; None where it is not to be told."""
        decision = self.decision
        if stage in decision.omit_stages:
            return None
        event = {**self._event, "stage": stage, "stageTimestamp": format_micro_time(now)}
        if answer is not None:
            told = None
            if isinstance(answer, Response) and (decision.tells_response or answer.status >= 400):
                told = readable(answer.body, answer.content_type.decode("latin-1"))
            event["responseStatus"] = _status(answer, told)
            if decision.tells_response and told is not None:
                event["responseObject"] = self._trimmed(told)
        if decision.tells_request and stage != "RequestReceived" and self._request.body:
            if self._object is None:
                body = readable(self._request.body, self._request.header(b"content-type"))
                self._object = self._trimmed(body)
            if self._object is not None:
                event["requestObject"] = self._object
        return orjson.dumps(event) + b"\n"

    def _trimmed(self, obj: Any) -> Any:
        if not self.decision.omit_managed_fields or not isinstance(obj, dict):
            return obj
        if isinstance(obj.get("items"), list):
            return {**obj, "items": [self._trimmed(each) for each in obj["items"]]}
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            return obj
        kept = {key: value for key, value in metadata.items() if key != "managedFields"}
        return {**obj, "metadata": kept}


def readable(body: bytes, content_type: str) -> Any:
    """A body as JSON; None for one that is none of ours."""
    try:
        if body[:4] == MAGIC:
            unknown = read_envelope(body)
            group, _, version = unknown.api_version.rpartition("/")
            type_ = type_of_gvk(group, version, unknown.kind)
            kind = {"kind": unknown.kind, "apiVersion": unknown.api_version}
            return kind if type_ is None else {**kind, **read_object(type_, unknown.raw)}
        if "yaml" in content_type:
            return yaml_codec.load(body)
        return orjson.loads(body) if "json" in content_type else None
    except (ValueError, ProtobufError):
        return None


def _sources(request: Request) -> list[str]:
    forwarded = [each.strip() for each in request.header(b"x-forwarded-for").split(",")]
    found = [each for each in (*forwarded, request.header(b"x-real-ip")) if each]
    if request.peer.address is not None:
        found.append(request.peer.address.host)
    return list(dict.fromkeys(found))


def _reference(info: RequestInfo) -> Obj:
    given = {
        "resource": info.resource,
        "namespace": info.namespace,
        "name": info.name,
        "apiGroup": info.group,
        "apiVersion": info.version,
        "subresource": info.subresource,
    }
    return {key: value for key, value in given.items() if value}


def _shown(user: User) -> Obj:
    given = {
        "username": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra.items()},
    }
    return {key: value for key, value in given.items() if value}


def _status(answer: Answer, told: Any) -> Obj:
    status: Obj = {"metadata": {}}
    if isinstance(answer, UpgradeResponse):
        return {**status, "code": 101}
    if isinstance(told, dict) and told.get("kind") == "Status":
        for key in ("status", "message", "reason", "details"):
            if told.get(key):
                status[key] = told[key]
    return {**status, "code": answer.status}
