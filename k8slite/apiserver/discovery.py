"""Discovery and OpenAPI as bytes, made again only when the table of kinds has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import orjson

from k8slite.api import discovery, openapi, openapi_v2_protobuf
from k8slite.api.meta import Obj
from k8slite.api.openapi_v2 import swagger
from k8slite.api.status import not_acceptable
from k8slite.apiserver.core import Core
from k8slite.apiserver.http.message import Request, Response

__all__ = ["serve_api", "serve_apis", "serve_openapi", "serve_swagger"]


def _remember(core: Core, key: tuple[str, ...], make: Callable[[], Obj | None]) -> Response | None:
    """The answer made once for each state of the table of kinds."""
    core.remotes.refresh()
    memo = core.kinds.memo
    if key not in memo:
        answer = make()
        if answer is None:
            return None
        memo[key] = orjson.dumps(answer)
    return Response(200, memo[key])


def _aggregated(core: Core, request: Request, *, of_core: bool) -> Response | None:
    """The aggregated answer, if the client asks for it before any other."""
    for clause in request.header(b"accept").split(","):
        compact = clause.replace(" ", "")
        for version, media in (
            ("v2", discovery.AGGREGATED_V2),
            ("v2beta1", discovery.AGGREGATED_V2BETA1),
        ):
            if compact == media:
                make = partial(
                    discovery.aggregated,
                    core.kinds.all(),
                    core=of_core,
                    version=version,
                    remotes=core.remotes.served(),
                )
                answer = _remember(core, ("aggregated", version, str(of_core)), make)
                assert answer is not None
                answer.content_type = media.encode()
                return answer
        if compact in ("application/json", "*/*"):
            return None
    return None


def serve_api(core: Core, request: Request) -> Response | None:
    """/api and /api/VERSION; None for what is not there."""
    parts = request.path.strip("/").split("/")
    if len(parts) == 1:
        found = _aggregated(core, request, of_core=True)
        if found is not None:
            return found
        host = core.config.advertise_address or core.addresses[0].host
        port = core.config.advertise_port or core.addresses[0].port
        return Response(200, orjson.dumps(discovery.api_versions(f"{host}:{port}")))
    return _resources(core, "", parts[1]) if len(parts) == 2 else None


def serve_apis(core: Core, request: Request) -> Response | None:
    """/apis, /apis/GROUP and /apis/GROUP/VERSION; None for what is not there."""
    parts = request.path.strip("/").split("/")
    kinds = core.kinds.all()
    if len(parts) == 1:
        found = _aggregated(core, request, of_core=False)
        if found is not None:
            return found
        list_ = partial(discovery.api_group_list, kinds, core.remotes.served())
        return _remember(core, ("groups",), list_)
    if len(parts) == 2:
        make = partial(discovery.api_group, kinds, parts[1], core.remotes.served())
        return _remember(core, ("group", parts[1]), make)
    return _resources(core, parts[1], parts[2]) if len(parts) == 3 else None


def _resources(core: Core, group: str, version: str) -> Response | None:
    make = partial(discovery.api_resource_list, core.kinds.all(), group, version)
    return _remember(core, ("resources", group, version), make)


def serve_openapi(core: Core, request: Request) -> Response | None:
    """/openapi/v3 and a document below it; None for what is not there.

    Documents are made when they are first asked for; only the index needs them all.
    """
    path = request.path.strip("/").removeprefix("openapi/v3").strip("/")
    if not path:
        return _remember(core, ("openapi",), lambda: _index(core))
    parts = path.split("/")
    group, version = ("", parts[-1]) if parts[0] == "api" else ("/".join(parts[1:-1]), parts[-1])
    document = _document(core, group, version)
    if document is None:
        return None
    etag = b'"%b"' % openapi.digest(document).encode()
    if request.headers.get(b"if-none-match") == etag:
        return Response(304, b"", headers=((b"Etag", etag),))
    return Response(200, document, headers=((b"Etag", etag), (b"Vary", b"Accept")))


def _index(core: Core) -> Obj:
    """All documents; those of other servers are where they say."""
    made = openapi.index(_documents(core))
    for service in core.remotes.all():
        heard = core.remotes.heard(service.name)
        if heard is not None and heard.document:
            path = openapi.group_path(service.group, service.version)
            made["paths"][path] = {"serverRelativeURL": heard.document}
    return made


def serve_swagger(core: Core, request: Request) -> Response:
    """/openapi/v2, as JSON or protobuf: the first of what the client accepts."""
    made = _remember(core, ("swagger",), lambda: swagger(map(orjson.loads, _all(core))))
    assert made is not None
    for clause in (request.header(b"accept") or "*/*").split(","):
        media = clause.partition(";")[0].strip()
        if media in ("application/json", "application/*", "*/*"):
            return made
        if media in openapi_v2_protobuf.ASKED_FOR:
            memo, key = core.kinds.memo, ("swagger", "protobuf")
            if key not in memo:
                memo[key] = openapi_v2_protobuf.encode(orjson.loads(made.body))
            return Response(200, memo[key], openapi_v2_protobuf.MEDIA_TYPE.encode())
    raise not_acceptable(["application/json", openapi_v2_protobuf.MEDIA_TYPE])


def _all(core: Core) -> Iterator[bytes]:
    return (document for _, document in _documents(core))


def _documents(core: Core) -> Iterator[tuple[str, bytes]]:
    for group, version in dict.fromkeys((k.group, k.version) for k in core.kinds.all()):
        document = _document(core, group, version)
        assert document is not None
        yield openapi.group_path(group, version), document


def _document(core: Core, group: str, version: str) -> bytes | None:
    """The document of a group and version."""
    schemas = core.kinds.schemas(group, version)
    if not schemas:
        try:
            return openapi.built_in_document(group, version)
        except KeyError:
            return None
    memo = core.kinds.memo
    key = ("document", group, version)
    if key not in memo:
        kinds = [k for k in core.kinds.all() if (k.group, k.version) == (group, version)]
        memo[key] = orjson.dumps(openapi.document(kinds, schemas))
    found: bytes = memo[key]
    return found
