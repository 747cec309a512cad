"""Discovery and OpenAPI as bytes, made once: what is served hardly ever changes."""

from __future__ import annotations

import orjson

from k8slite.api import discovery, openapi
from k8slite.api.kinds import KINDS
from k8slite.api.meta import Obj
from k8slite.apiserver.core import Core
from k8slite.apiserver.http.message import Request, Response

__all__ = ["serve_api", "serve_apis", "serve_openapi"]

_JSON = b"application/json"
_bytes: dict[tuple[str, ...], bytes] = {}


def _remember(key: tuple[str, ...], make: Obj) -> Response:
    found = _bytes.get(key)
    if found is None:
        found = _bytes[key] = orjson.dumps(make)
    return Response(200, found)


def _aggregated(request: Request, *, core: bool) -> Response | None:
    """The aggregated answer, if the client asks for it before any other."""
    accept = request.header(b"accept")
    for clause in accept.split(","):
        compact = clause.replace(" ", "")
        for version, media in (
            ("v2", discovery.AGGREGATED_V2),
            ("v2beta1", discovery.AGGREGATED_V2BETA1),
        ):
            if compact == media:
                key = ("aggregated", version, str(core))
                if key not in _bytes:
                    answer = discovery.aggregated(KINDS, core=core, version=version)
                    _bytes[key] = orjson.dumps(answer)
                return Response(200, _bytes[key], media.encode())
        if compact in ("application/json", "*/*"):
            return None
    return None


def serve_api(core: Core, request: Request) -> Response | None:
    """/api and /api/VERSION; None for what is not there."""
    parts = request.path.strip("/").split("/")
    if len(parts) == 1:
        found = _aggregated(request, core=True)
        if found is not None:
            return found
        host = core.config.advertise_address or core.addresses[0].host
        port = core.config.advertise_port or core.addresses[0].port
        return Response(200, orjson.dumps(discovery.api_versions(f"{host}:{port}")))
    if len(parts) == 2:
        return _resources("", parts[1])
    return None


def serve_apis(core: Core, request: Request) -> Response | None:
    """/apis, /apis/GROUP and /apis/GROUP/VERSION; None for what is not there."""
    parts = request.path.strip("/").split("/")
    if len(parts) == 1:
        found = _aggregated(request, core=False)
        return found or _remember(("groups",), discovery.api_group_list(KINDS))
    if len(parts) == 2:
        group = discovery.api_group(KINDS, parts[1])
        return None if group is None else _remember(("group", parts[1]), group)
    if len(parts) == 3:
        return _resources(parts[1], parts[2])
    return None


def _resources(group: str, version: str) -> Response | None:
    found = discovery.api_resource_list(KINDS, group, version)
    return None if found is None else _remember(("resources", group, version), found)


def serve_openapi(core: Core, request: Request) -> Response | None:
    """/openapi/v3 and a document below it; None for what is not there.

    Documents are made when they are first asked for; only the index needs them all.
    """
    path = request.path.strip("/").removeprefix("openapi/v3").strip("/")
    if not path:
        found = _bytes.get(("openapi",))
        if found is None:
            found = orjson.dumps(openapi.index(openapi.built_in_documents()))
            _bytes["openapi",] = found
        return Response(200, found)
    parts = path.split("/")
    group, version = ("", parts[-1]) if parts[0] == "api" else ("/".join(parts[1:-1]), parts[-1])
    try:
        document = openapi.built_in_document(group, version)
    except KeyError:
        return None
    etag = b'"%b"' % openapi.digest(document).encode()
    if request.headers.get(b"if-none-match") == etag:
        return Response(304, b"", headers=((b"Etag", etag),))
    return Response(200, document, headers=((b"Etag", etag), (b"Vary", b"Accept")))
