"""Does the server behind an APIService answer? The condition Available, and what it serves.

Every server looks for itself and writes what it finds, where it is news.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable

import orjson
import trio

from k8slite.api.discovery import AGGREGATED_V2, from_resource_list
from k8slite.api.kinds import API_SERVICES, ENDPOINT_SLICES, SERVICES
from k8slite.api.meta import Obj, copy, format_time, get_condition, set_condition
from k8slite.api.status import ApiError
from k8slite.apiserver.aggregation.proxy import AGGREGATOR, user_headers
from k8slite.apiserver.aggregation.remotes import Heard, Service
from k8slite.apiserver.backends import BackendError
from k8slite.apiserver.core import Core
from k8slite.apiserver.endpoints import ready_endpoints
from k8slite.apiserver.forms import read
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.rounds import run_rounds
from k8slite.apiserver.store.base import Changed, Write
from k8slite.apiserver.watch_cache import Entry
from raftkv.errors import KvError

__all__ = ["LOCAL", "run_availability"]

log = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
RETRY_SECONDS = 2.0
ANSWER_SECONDS = 6.0
ATTEMPTS = 5
LOCAL: Obj = {
    "type": "Available",
    "status": "True",
    "reason": "Local",
    "message": "Local APIServices are always available",
}


class _Unavailable(Exception):
    """Reason and message of the condition."""


async def run_availability(core: Core) -> None:
    """For ever: look after every change that may matter, and now and then."""
    kinds = (API_SERVICES, SERVICES, ENDPOINT_SLICES)
    looked: dict[str, tuple[Hashable, float]] = {}
    await run_rounds(
        core,
        kinds,
        lambda: _round(core, looked),
        every_seconds=CHECK_SECONDS,
        retry_seconds=RETRY_SECONDS,
    )


async def _round(core: Core, looked: dict[str, tuple[Hashable, float]]) -> bool:
    """True when all is well; else come again soon. `looked`: at what, and when, last time."""
    core.remotes.refresh()
    results: list[bool] = []

    async def one(entry: Entry) -> None:
        inputs = _inputs(core, Service(entry.name, entry.parsed()))
        before, at = looked.get(entry.name, (None, 0.0))
        if inputs == before and trio.current_time() < at + CHECK_SECONDS:
            return
        is_well = await _look(core, entry)
        if is_well:
            looked[entry.name] = (inputs, trio.current_time())
        else:
            looked.pop(entry.name, None)
        results.append(is_well)

    async with trio.open_nursery() as nursery:
        for entry in list(core.mirror.cache(API_SERVICES).entries.values()):
            if (entry.parsed().get("spec") or {}).get("service"):
                nursery.start_soon(one, entry)
            elif (get_condition(entry.parsed(), "Available") or {}).get("reason") != "Local":
                nursery.start_soon(_write, core, entry, LOCAL)
    return all(results)


def _inputs(core: Core, service: Service) -> Hashable:
    """What the outcome depends on, besides the other server."""
    obj, reference = service.obj, service.reference
    name, namespace = reference.get("name", ""), reference.get("namespace", "")
    own = {"spec": obj["spec"], "labels": obj["metadata"].get("labels")}
    entry = core.mirror.cache(SERVICES).get(namespace, name)
    ports = (entry.parsed().get("spec") or {}).get("ports") if entry else None
    endpoints = [
        endpoint
        for port in ports or ()
        for endpoint in ready_endpoints(core.mirror, namespace, name, port.get("name") or "")
    ]
    return orjson.dumps([own, ports]), tuple(endpoints)


async def _look(core: Core, entry: Entry) -> bool:
    service = Service(entry.name, entry.parsed())
    condition = {
        "type": "Available",
        "status": "True",
        "reason": "Passed",
        "message": "all checks passed",
    }
    try:
        _check_service(core, service)
        heard = await _ask(core, service)
    except _Unavailable as error:
        reason, message = error.args
        condition |= {"status": "False", "reason": reason, "message": message}
        known = core.remotes.heard(service.name)
        heard = Heard([], is_fresh=False) if known is None else known._replace(is_fresh=False)
    core.remotes.hear(service.name, heard)
    await _write(core, entry, condition)
    return condition["reason"] != "FailedDiscoveryCheck"


def _check_service(core: Core, service: Service) -> None:
    """Raises _Unavailable."""
    reference = service.reference
    name, namespace = reference.get("name", ""), reference.get("namespace", "")
    shown = f'service/{name} in "{namespace}"'
    entry = core.mirror.cache(SERVICES).get(namespace, name)
    if entry is None:
        raise _Unavailable("ServiceNotFound", f"{shown} is not present")
    spec = entry.parsed().get("spec") or {}
    if spec.get("type", "ClusterIP") != "ClusterIP":
        return
    ports = spec.get("ports") or ()
    found = next((p for p in ports if p.get("port") == service.port), None)
    if found is None:
        message = f"{shown} is not listening on port {service.port}"
        raise _Unavailable("ServicePortError", message)
    port_name = found.get("name") or ""
    if not ready_endpoints(core.mirror, namespace, name, port_name):
        message = f'endpointslices for {shown} have no addresses with port name "{port_name}"'
        raise _Unavailable("MissingEndpoints", message)


async def _ask(core: Core, service: Service) -> Heard:
    """What it serves. Raises _Unavailable."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with trio.fail_after(ANSWER_SECONDS):
                return await _discover(core, service)
        except trio.TooSlowError:
            message = f"timed out waiting for {service.path}"
        except BackendError as error:
            message = f"failing or missing response from {error}"
        if attempt == ATTEMPTS:
            break
    raise _Unavailable("FailedDiscoveryCheck", message)


async def _discover(core: Core, service: Service) -> Heard:
    """Its own list of resources, which it must serve; of its OpenAPI, where the document is.

    Raises BackendError.
    """
    answer = await _get(core, service, service.path, "application/json")
    resources = from_resource_list(answer, service.group, service.version)
    listed = await _get_if_there(core, service, "/apis", AGGREGATED_V2)
    resources = _of_version(listed, service) or resources
    documents = await _get_if_there(core, service, "/openapi/v3", "application/json")
    path = service.path.removeprefix("/")
    found = (documents.get("paths") or {}).get(path) or {}
    return Heard(resources, str(found.get("serverRelativeURL", "")))


def _of_version(listed: Obj, service: Service) -> list[Obj]:
    for group in listed.get("items") or ():
        if (group.get("metadata") or {}).get("name") == service.group:
            for version in group.get("versions") or ():
                if version.get("version") == service.version:
                    return list(version.get("resources") or ())
    return []


async def _get_if_there(core: Core, service: Service, path: str, accept: str) -> Obj:
    """Empty for what it does not serve."""
    try:
        return await _get(core, service, path, accept)
    except BackendError as error:
        log.debug("apiservice=%s: %s", service.name, error)
        return {}


async def _get(core: Core, service: Service, path: str, accept: str) -> Obj:
    place = core.remotes.place(service, insecure=True)
    url = f"https://{place.address}{path}"
    headers = [(name.decode(), value.decode()) for name, value in user_headers(AGGREGATOR)]
    headers.append(("Accept", accept))
    try:
        answer = await core.backends.send(place, "GET", path, headers, None)
    except BackendError as error:
        raise BackendError(f'{url}: Get "{url}": {error}') from None
    if not 200 <= answer.status < 300:
        raise BackendError(f"{url}: bad status from {url}: {answer.status}")
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise BackendError(f"{url}: the answer is no object")
    return found


async def _write(core: Core, entry: Entry, condition: Obj) -> None:
    """Note the condition, where it is news. Another server may have noted it already."""
    old = read(API_SERVICES, entry)
    new = copy(old)
    set_condition(new.setdefault("status", {}), condition, format_time(core.now()))
    if new == old:
        return
    key = storage_key(API_SERVICES, "", entry.name)
    try:
        with trio.fail_after(core.config.store_seconds):
            await core.store.commit([Write(key, encode(new), entry.revision)])
        log.info("apiservice=%s available=%s", entry.name, condition["status"])
    except Changed:
        log.debug("apiservice changed meanwhile name=%s", entry.name)
    except (KvError, ApiError, trio.TooSlowError) as error:
        log.warning("apiservice waits name=%s: %s", entry.name, error)
