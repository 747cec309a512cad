"""Paths that are no resources: discovery, OpenAPI, version, health, metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable

import orjson
import trio

from k8slite.api.status import ApiError, method_not_supported
from k8slite.apiserver.core import Core
from k8slite.apiserver.discovery import serve_api, serve_apis, serve_openapi, serve_swagger
from k8slite.apiserver.http.message import Request, Response, json_response
from k8slite.apiserver.requestinfo import RequestInfo

__all__ = ["VERSION", "serve_path"]

log = logging.getLogger(__name__)

PAGE_NOT_FOUND = "PageNotFound"
_TEXT = b"text/plain; charset=utf-8"

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0+k8slite",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-11-23T00:00:00Z",
    "goVersion": "none",
    "compiler": "cpython",
    "platform": "linux/amd64",
}
PROBE_SECONDS = 2.0
_NEEDS_STORE = ("/readyz", "/healthz")


async def serve_path(core: Core, request: Request, info: RequestInfo) -> Response:
    """Answer a non-resource request. Raises ApiError 404, 405."""
    path = info.path.rstrip("/") or "/"
    if path.startswith(_NEEDS_STORE):
        await _probe_store(core)
    found = PATHS.get(path)
    if found is None:
        for prefix, handler in PREFIXES:
            if path.startswith(prefix):
                found = handler
                break
    if found is None:
        raise ApiError(404, PAGE_NOT_FOUND, "404 page not found")
    if request.method not in ("GET", "HEAD"):
        raise method_not_supported()
    return found(core, request)


async def _probe_store(core: Core) -> None:
    """Ask the store for its revision, so that health tells of now."""
    core.ready["store"] = False
    with trio.move_on_after(PROBE_SECONDS):
        try:
            await core.mirror.wait_fresh()
            core.ready["store"] = True
        except ApiError as error:
            log.info("health: %s", error.message)


def _version(core: Core, request: Request) -> Response:
    return json_response(200, VERSION)


def _root(core: Core, request: Request) -> Response:
    return json_response(200, {"paths": sorted([*PATHS, *(p for p, _ in PREFIXES)])})


def _health(core: Core, request: Request) -> Response:
    """/healthz, /livez, /readyz, each with ?verbose, ?exclude and single checks below."""
    name, _, check = request.path.strip("/").partition("/")
    excluded = set(request.query.get("exclude", ()))
    checks = {
        "ping": True,
        "log": True,
        "store": core.ready.get("store", False),
        "mirror-sync": core.mirror.synced.is_set(),
        "poststarthook/bootstrap": core.ready.get("bootstrap", False),
    }
    if name == "livez":
        checks = dict.fromkeys(("ping", "log"), True)
    if check:
        if check not in checks:
            raise ApiError(404, PAGE_NOT_FOUND, "404 page not found")
        checks = {check: checks[check]}
    failed = [key for key, good in checks.items() if not good and key not in excluded]
    if not failed and "verbose" not in request.query:
        return Response(200, b"ok", _TEXT)
    lines = [
        f"[+]{key} excluded: ok" if key in excluded
        else f"[+]{key} ok" if good
        else f"[-]{key} failed: reason withheld"
        for key, good in checks.items()
    ]  # fmt: skip
    lines.append(f"{name} check {'failed' if failed else 'passed'}")
    return Response(500 if failed else 200, ("\n".join(lines) + "\n").encode(), _TEXT)


def _metrics(core: Core, request: Request) -> Response:
    gauges = {"apiserver_store_revision": float(core.mirror.revision)}
    for cache in core.mirror.caches():
        resource = f"{cache.plural}.{cache.group}" if cache.group else cache.plural
        gauges[f'apiserver_storage_objects{{resource="{resource}"}}'] = float(len(cache.entries))
        if cache.watchers:
            gauges[f'apiserver_longrunning_requests{{resource="{resource}"}}'] = cache.watchers
    for level in core.flow.levels():
        label = f'{{priority_level="{level.name}"}}'
        gauges[f"apiserver_flowcontrol_current_executing_seats{label}"] = level.at_work
        gauges[f"apiserver_flowcontrol_current_inqueue_requests{label}"] = level.waiting
        gauges[f"apiserver_flowcontrol_dispatched_requests_total{label}"] = level.dispatched
        gauges[f"apiserver_flowcontrol_rejected_requests_total{label}"] = level.refused
    return Response(200, core.metrics.text(gauges).encode(), b"text/plain; version=0.0.4")


def _openid(core: Core, request: Request) -> Response:
    issuer = core.config.service_account_issuer
    return Response(
        200,
        orjson.dumps(
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/openid/v1/jwks",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            }
        ),
    )


def _api(core: Core, request: Request) -> Response:
    return _or_not_found(serve_api(core, request))


def _apis(core: Core, request: Request) -> Response:
    return _or_not_found(serve_apis(core, request))


def _openapi(core: Core, request: Request) -> Response:
    return _or_not_found(serve_openapi(core, request))


def _or_not_found(answer: Response | None) -> Response:
    if answer is None:
        raise ApiError(404, PAGE_NOT_FOUND, "404 page not found")
    return answer


def _key_set(core: Core, request: Request) -> Response:
    body = orjson.dumps(core.authenticator.key_set())
    return Response(200, body, b"application/jwk-set+json")


PATHS: dict[str, Callable[[Core, Request], Response]] = {
    "/": _root,
    "/api": _api,
    "/apis": _apis,
    "/openapi/v2": serve_swagger,
    "/openapi/v3": _openapi,
    "/version": _version,
    "/healthz": _health,
    "/livez": _health,
    "/readyz": _health,
    "/metrics": _metrics,
    "/.well-known/openid-configuration": _openid,
    "/openid/v1/jwks": _key_set,
}
PREFIXES: tuple[tuple[str, Callable[[Core, Request], Response]], ...] = (
    ("/api/", _api),
    ("/apis/", _apis),
    ("/openapi/v3/", _openapi),
    ("/healthz/", _health),
    ("/livez/", _health),
    ("/readyz/", _health),
)
