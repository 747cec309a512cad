"""The calls every component makes to the apiserver, as a protocol.

`Client` fulfils it over HTTP; the fakes of the tests fulfil it in memory. All calls raise
ApiError for an answer with an error status, Unreachable when nobody answered, and the writes
UnknownOutcome when the answer was lost (`k8slite.client.errors`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj

__all__ = ["Api", "ObjList"]


class ObjList(NamedTuple):
    """A page of a list; `continue_` asks for the next one and is "" on the last."""

    items: list[Obj]
    resource_version: str
    continue_: str


class Api(Protocol):
    """Reading and writing objects."""

    async def get(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
        resource_version: str | None = None,
    ) -> Obj: ...

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str | None = None,
    ) -> ObjList:
        """One page (`limit` 0: everything)."""
        ...

    async def create(
        self,
        kind: Kind,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str = "",
        subresource: str = "",
    ) -> Obj:
        """POST; the namespace defaults to the object's own. `name` is for subresources."""
        ...

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "") -> Obj:
        """PUT; a resourceVersion in the object makes it conditional (409 on conflict)."""
        ...

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        type: str = "merge",  # noqa: A002 - the API's own word
        subresource: str = "",
    ) -> Obj:
        """PATCH; `type` is merge, strategic or json."""
        ...

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Obj:
        """DELETE; `uid` and `resource_version` are preconditions (409 if they do not hold)."""
        ...

    async def delete_collection(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
    ) -> Obj: ...

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        labels: str = "",
        fields: str = "",
        bookmarks: bool = True,
        timeout_seconds: int = 0,
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, Obj]]]:
        """Events after `resource_version`; the server ends the watch after `timeout_seconds`."""
        ...
