"""Security contexts of pods and containers."""

from __future__ import annotations

import re
from typing import Any

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import duplicate, invalid_value, required
from k8slite.api.validation.common import Errors, check_all, one_of

MAX_ID = 2**31 - 1
_ID_MESSAGE = f"must be between 0 and {MAX_ID}, inclusive"
_SYSCTL = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL_FULL = re.compile(rf"({_SYSCTL}[\./])*{_SYSCTL}")


def _identity(value: int | None, path: str, errors: Errors) -> None:
    if value is not None and not 0 <= value <= MAX_ID:
        errors.append(invalid_value(path, value, _ID_MESSAGE))


def container_security(context: Obj, path: str, errors: Errors) -> None:
    _identity(context.get("runAsUser"), f"{path}.runAsUser", errors)
    _identity(context.get("runAsGroup"), f"{path}.runAsGroup", errors)
    if "procMount" in context:
        one_of(context["procMount"], ("Default", "Unmasked"), f"{path}.procMount", errors)
    seccomp(context.get("seccompProfile"), f"{path}.seccompProfile", errors)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            errors.append(invalid_value(path, _go_security(context), detail))
        added = (context.get("capabilities") or {}).get("add") or ()
        if "CAP_SYS_ADMIN" in added:
            detail = (
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add`"
                " CAP_SYS_ADMIN"
            )
            errors.append(invalid_value(path, _go_security(context), detail))
    windows(context.get("windowsOptions"), f"{path}.windowsOptions", errors)
    app_armor(context.get("appArmorProfile"), f"{path}.appArmorProfile", errors)


_GO_SECURITY = (
    "capabilities",
    "privileged",
    "seLinuxOptions",
    "windowsOptions",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "allowPrivilegeEscalation",
    "procMount",
    "seccompProfile",
    "appArmorProfile",
)


def _go_security(context: Obj) -> Obj:
    """The context as Go prints its internal struct."""
    shown: dict[str, Any] = {}
    for field in _GO_SECURITY:
        name = "SELinuxOptions" if field == "seLinuxOptions" else field[0].upper() + field[1:]
        value = context.get(field)
        if field == "capabilities" and value is not None:
            value = {"Add": value.get("add"), "Drop": value.get("drop")}
        shown[name] = value
    return shown


def seccomp(profile: Obj | None, path: str, errors: Errors) -> None:
    _profile(profile, path, "seccompProfile", errors, relative=True)


def app_armor(profile: Obj | None, path: str, errors: Errors) -> None:
    _profile(profile, path, "appArmorProfile", errors, relative=False)


def _profile(profile: Obj | None, path: str, name: str, errors: Errors, relative: bool) -> None:
    if profile is None:
        return
    type_, local = profile.get("type", ""), profile.get("localhostProfile")
    if not type_:
        errors.append(required(f"{path}.type", f"type is required when {name} is set"))
        return
    one_of(type_, ("Localhost", "RuntimeDefault", "Unconfined"), f"{path}.type", errors)
    at = f"{path}.localhostProfile"
    if type_ == "Localhost":
        _localhost_profile(local, name, at, errors, relative)
    elif local is not None and (relative or type_ in ("RuntimeDefault", "Unconfined")):
        detail = f"can only be set when {'seccomp' if relative else 'AppArmor'} type is Localhost"
        shown: Any = {"Type": type_, "LocalhostProfile": local} if relative else local
        errors.append(invalid_value(at, shown, detail))


def _localhost_profile(
    local: str | None, name: str, path: str, errors: Errors, relative: bool
) -> None:
    if not local:
        kind = "seccomp type is Localhost" if relative else "AppArmor type is Localhost"
        errors.append(required(path, f"must be set when {kind}"))
        return
    if relative:
        if local.startswith("/"):
            errors.append(invalid_value(path, local, "must be a relative path"))
        if ".." in local.split("/"):
            errors.append(invalid_value(path, local, "must not contain '..'"))
    elif local != local.strip():
        errors.append(invalid_value(path, local, "must not be padded with whitespace"))


def windows(options: Obj | None, path: str, errors: Errors) -> None:
    if not options:
        return
    name = options.get("gmsaCredentialSpecName")
    if name is not None:
        check_all(names.check_dns_subdomain(name), f"{path}.gmsaCredentialSpecName", name, errors)
    spec = options.get("gmsaCredentialSpec")
    if spec is not None:
        if not spec:
            detail = "gmsaCredentialSpec cannot be an empty string"
            errors.append(invalid_value(f"{path}.gmsaCredentialSpec", spec, detail))
        elif len(spec) > 64 * 1024:
            detail = "gmsaCredentialSpec size must be under 64 KiB"
            errors.append(invalid_value(f"{path}.gmsaCredentialSpec", spec, detail))
    user = options.get("runAsUserName")
    if user is not None:
        _windows_user(user, f"{path}.runAsUserName", errors)


def _windows_user(user: str, path: str, errors: Errors) -> None:
    if not user:
        errors.append(invalid_value(path, user, "runAsUserName cannot be an empty string"))
        return
    if any(ord(c) < 32 or ord(c) == 127 for c in user):
        errors.append(invalid_value(path, user, "runAsUserName cannot contain control characters"))
        return
    parts = user.split("\\")
    if len(parts) > 2:
        errors.append(
            invalid_value(path, user, "runAsUserName cannot contain more than one backslash")
        )
        return
    domain, name = (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])
    if domain is not None and len(domain) >= 256:
        errors.append(
            invalid_value(path, user, "runAsUserName's Domain length must be under 256 characters")
        )
    if not name:
        errors.append(invalid_value(path, user, "runAsUserName's User cannot be empty"))
    elif len(name) > 104:
        errors.append(
            invalid_value(
                path, user, "runAsUserName's User length must not be longer than 104 characters"
            )
        )
    if re.fullmatch(r"[\. ]+", name):
        errors.append(
            invalid_value(path, user, "runAsUserName's User cannot contain only periods or spaces")
        )
    match = re.search(r'["/\\:;|=,+*?<>@\[\]]', name)
    if match is not None:
        detail = "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"
        errors.append(invalid_value(path, user, detail))


def pod_security(spec: Obj, path: str, errors: Errors) -> None:
    context = spec.get("securityContext") or {}
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid_value(f"{path}.shareProcessNamespace", True, detail))
    if not context:
        return
    for field in ("fsGroup", "runAsUser", "runAsGroup"):
        _identity(context.get(field), f"{path}.{field}", errors)
    for i, group in enumerate(context.get("supplementalGroups") or ()):
        _identity(group, f"{path}.supplementalGroups[{i}]", errors)
    if context.get("sysctls"):
        _sysctls(context["sysctls"], f"{path}.sysctls", errors)
    if "fsGroupChangePolicy" in context:
        one_of(
            context["fsGroupChangePolicy"],
            ("Always", "OnRootMismatch"),
            f"{path}.fsGroupChangePolicy",
            errors,
        )
    seccomp(context.get("seccompProfile"), f"{path}.seccompProfile", errors)
    windows(context.get("windowsOptions"), f"{path}.windowsOptions", errors)
    app_armor(context.get("appArmorProfile"), f"{path}.appArmorProfile", errors)
    if "supplementalGroupsPolicy" in context:
        one_of(
            context["supplementalGroupsPolicy"],
            ("Merge", "Strict"),
            f"{path}.supplementalGroupsPolicy",
            errors,
        )
    if "seLinuxChangePolicy" in context:
        one_of(
            context["seLinuxChangePolicy"], ("Recursive",), f"{path}.seLinuxChangePolicy", errors
        )


def _sysctls(sysctls: list[Obj], path: str, errors: Errors) -> None:
    seen: set[str] = set()
    for i, sysctl in enumerate(sysctls):
        name = sysctl.get("name", "")
        at = f"{path}[{i}].name"
        if not name:
            errors.append(required(at))
        elif len(name) > 253 or not _SYSCTL_FULL.fullmatch(name):
            detail = (
                f"must have at most 253 characters and match regex ^({_SYSCTL}[\\./])*{_SYSCTL}$"
            )
            errors.append(invalid_value(at, name, detail))
        elif name in seen:
            errors.append(duplicate(at, name))
        seen.add(name)
