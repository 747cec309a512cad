"""Probes and lifecycle hooks: exactly one handler each."""

from __future__ import annotations

from typing import Any, NamedTuple

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    check_all,
    not_negative,
    one_of,
    port_number,
    port_number_or_name,
)

PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")


class PodFacts(NamedTuple):
    """What a container's checks need to know of its pod."""

    volumes: dict[str, Obj]
    claims: list[str]
    restart_policy: str
    grace_seconds: int
    host_network: bool
    windows: bool


def validate_probes(container: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    for field in PROBES:
        probe = container.get(field)
        if probe is None:
            continue
        at = f"{path}.{field}"
        _probe(probe, facts, at, errors)
        threshold = probe.get("successThreshold", 1)
        if field != "readinessProbe" and threshold != 1:
            errors.append(invalid_value(f"{at}.successThreshold", threshold, "must be 1"))
        grace = probe.get("terminationGracePeriodSeconds")
        if field == "readinessProbe":
            if grace is not None:
                detail = "must not be set for readinessProbes"
                errors.append(invalid_value(f"{at}.terminationGracePeriodSeconds", grace, detail))
        elif grace is not None and grace <= 0:
            detail = "must be greater than 0"
            errors.append(invalid_value(f"{at}.terminationGracePeriodSeconds", grace, detail))


def _probe(probe: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    validate_handler(probe, facts, path, errors)
    for field in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        not_negative(probe.get(field), f"{path}.{field}", errors)


def validate_handler(handler: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    """Exactly one of exec, httpGet, tcpSocket, grpc (probes), sleep (lifecycle)."""
    count = 0
    for field in _HANDLERS:
        if field not in handler:
            continue
        at = f"{path}.{field}"
        if count > 0:
            errors.append(forbidden_field(at, "may not specify more than 1 handler type"))
            continue
        count += 1
        action: Any = handler[field]
        if field == "exec":
            if not action.get("command"):
                errors.append(required(f"{at}.command"))
        elif field == "httpGet":
            _http_get(action, at, errors)
        elif field == "tcpSocket":
            port_number_or_name(action.get("port", 0), f"{at}.port", errors)
        elif field == "grpc":
            port_number(action.get("port", 0), f"{at}.port", errors)
        else:
            _sleep(action, facts, at, errors)
    if count == 0:
        errors.append(required(path, "must specify a handler type"))


def _http_get(action: Obj, path: str, errors: Errors) -> None:
    if not action.get("path"):
        errors.append(required(f"{path}.path"))
    port_number_or_name(action.get("port", 0), f"{path}.port", errors)
    one_of(action.get("scheme", ""), ("HTTP", "HTTPS"), f"{path}.scheme", errors)
    for header in action.get("httpHeaders") or ():
        name = header.get("name", "")
        check_all(names.check_http_header_name(name), f"{path}.httpHeaders", name, errors)


def _sleep(action: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    seconds = action.get("seconds", 0)
    if seconds < 0 or seconds > facts.grace_seconds:
        detail = (
            "must be non-negative and less than terminationGracePeriodSeconds"
            f" ({facts.grace_seconds})"
        )
        errors.append(invalid_value(path, seconds, detail))


def validate_lifecycle(lifecycle: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    for field in ("postStart", "preStop"):
        if field in lifecycle:
            validate_handler(lifecycle[field], facts, f"{path}.{field}", errors)
    signal = lifecycle.get("stopSignal")
    if signal is not None:
        if not facts.windows and signal == "":
            errors.append(not_supported(f"{path}.stopSignal", signal, ()))
        errors.append(
            forbidden_field(
                f"{path}.stopSignal", "may not be set for containers with empty `spec.os.name`"
            )
        )
