"""Definitions of custom resources, and aggregated API services."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from k8slite.api import names
from k8slite.api.cel.rule_checks import validate_rules
from k8slite.api.meta import Obj
from k8slite.api.status import (
    NULL,
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from k8slite.api.validation.common import Errors, check_all, one_of

_STORAGE = "must have exactly one version marked as storage version"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")


def validate_definition(o: Obj, old: Obj | None = None) -> list[FieldError]:
    """`old` is what an update replaces: rules that it has already are not looked at again."""
    errors: Errors = []
    spec = o.get("spec") or {}
    given, group = spec.get("names") or {}, spec.get("group", "")
    name = o["metadata"].get("name", "")
    if name != f"{given.get('plural', '')}.{group}":
        detail = 'must be spec.names.plural+"."+spec.group'
        errors.append(invalid_value("metadata.name", name, detail))
    if not group:
        errors.append(required("spec.group"))
    else:
        check_all(names.check_dns_subdomain(group), "spec.group", group, errors)
        if not names.check_dns_subdomain(group) and "." not in group:
            detail = "should be a domain with at least one dot"
            errors.append(invalid_value("spec.group", group, detail))
    scope = spec.get("scope", "")
    if scope not in ("Cluster", "Namespaced"):
        known = ("Cluster", "Namespaced")
        errors.append(
            not_supported("spec.scope", scope, known) if scope else required("spec.scope")
        )
    if spec.get("preserveUnknownFields"):
        at = "spec.preserveUnknownFields"
        if any("default" in str(v.get("schema")) for v in spec.get("versions") or ()):
            detail = "must be false in order to use defaults in the schema"
            errors.append(invalid_value(at, True, detail))
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in"
            " spec.versions[*].schema instead"
        )
        errors.append(invalid_value(at, True, detail))
    before = ((old or {}).get("spec") or {}).get("versions") or ()
    settled: list[Any] = [(v.get("schema") or {}).get("openAPIV3Schema") for v in before]
    _versions(spec.get("versions") or [], errors, settled)
    _definition_names(given, errors)
    _conversion(spec.get("conversion") or {}, errors)
    _stored_versions(o, errors)
    return errors


def _stored_versions(o: Obj, errors: Errors) -> None:
    """What may still be stored must be known."""
    stored = (o.get("status") or {}).get("storedVersions")
    if not stored:
        detail = "must have at least one stored version"
        errors.append(invalid_value("status.storedVersions", NULL, detail))
        return
    versions = (o.get("spec") or {}).get("versions") or []
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            detail = f"must have the storage version {version.get('name')}"
            errors.append(invalid_value("status.storedVersions", stored, detail))
    known = {version.get("name") for version in versions}
    for i, name in enumerate(stored):
        if name not in known:
            detail = (
                f"missing from spec.versions; {name} was previously a storage version, and must "
                "remain in spec.versions until a storage migration ensures no data remains "
                f"persisted in {name} and removes {name} from status.storedVersions"
            )
            errors.append(invalid_value(f"status.storedVersions[{i}]", name, detail))


_APPROVAL = "api-approved.kubernetes.io"
_PROTECTED = ("k8s.io", "kubernetes.io")


def _approved(o: Obj, errors: Errors) -> None:
    """Groups of the project's own want a word of approval."""
    group = (o.get("spec") or {}).get("group", "")
    if not group.endswith(tuple(f".{domain}" for domain in _PROTECTED)):
        return
    value = (o["metadata"].get("annotations") or {}).get(_APPROVAL, "")
    at, parts = f"metadata.annotations[{_APPROVAL}]", urlsplit(value)
    head = f'protected groups must have approval annotation "{_APPROVAL}"'
    see = "see https://github.com/kubernetes/enhancements/pull/1111"
    if not value:
        errors.append(required(at, f"{head}, {see}"))
    elif not value.startswith("unapproved") and not (parts.scheme and parts.netloc):
        detail = f'{head} with either a URL or a reason starting with "unapproved", {see}'
        errors.append(invalid_value(at, value, detail))


def validate_new_definition(o: Obj) -> list[FieldError]:
    errors = validate_definition(o)
    _approved(o, errors)
    return errors


def _versions(versions: list[Obj], errors: Errors, settled: list[Any]) -> None:
    seen: set[str] = set()
    for i, version in enumerate(versions):
        at, name = f"spec.versions[{i}]", version.get("name", "")
        check_all(names.check_dns_1035_label(name), f"{at}.name", name, errors)
        if name in seen:
            detail = "must contain unique version names"
            errors.append(invalid_value("spec.versions", _go_versions(versions), detail))
        seen.add(name)
        warning = version.get("deprecationWarning")
        if warning is not None and not version.get("deprecated"):
            detail = "can only be set for deprecated versions"
            errors.append(invalid_value(f"{at}.deprecationWarning", warning, detail))
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            errors.append(required(f"{at}.schema.openAPIV3Schema"))
        else:
            schema = version["schema"]["openAPIV3Schema"]
            _structural(schema, f"{at}.schema.openAPIV3Schema", errors, root=True)
            if schema not in settled:
                errors += validate_rules(schema, f"{at}.schema.openAPIV3Schema")
        for j, column in enumerate(version.get("additionalPrinterColumns") or ()):
            _printer_column(column, f"spec.additionalPrinterColumns[{j}]", errors)
        _selectable(version, f"{at}.selectableFields", errors)
    if sum(bool(v.get("storage")) for v in versions) != 1:
        shown = _go_versions(versions) if versions else NULL
        errors.append(invalid_value("spec.versions", shown, _STORAGE))


SELECTABLE_MAX = 8
_SELECTABLE = (
    "must point to a field of type string, boolean or integer. Enum string fields and strings with "
    "formats are allowed."
)


def _selectable(version: Obj, path: str, errors: Errors) -> None:
    """Fields that selectors may name: scalars, and not in the metadata."""
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    seen: set[str] = set()
    for i, each in enumerate(version.get("selectableFields") or ()):
        at, where = f"{path}[{i}].jsonPath", each.get("jsonPath", "")
        if not where:
            errors.append(required(at))
            continue
        found: Any = schema if where.startswith(".") else None
        for step in where.removeprefix(".").split("."):
            found = ((found or {}).get("properties") or {}).get(step)
        if where.startswith(".metadata"):
            errors.append(invalid_value(at, where, "must not point to fields in metadata"))
        elif found is None:
            detail = "is an invalid path: does not refer to a valid field"
            errors.append(invalid_value(at, where, detail))
            continue
        elif found.get("type") not in ("string", "boolean", "integer"):
            errors.append(invalid_value(at, where, _SELECTABLE))
        if where in seen:
            errors.append(duplicate(at, where))
        seen.add(where)
    if len(seen) > SELECTABLE_MAX:
        errors.append(too_many(path, len(seen), SELECTABLE_MAX))


def _go_versions(versions: list[Obj]) -> list[Obj]:
    """The versions as Go prints its internal type: what all share has moved out of them."""
    return [
        {
            "Name": v.get("name", ""),
            "Served": v.get("served", False),
            "Storage": v.get("storage", False),
            "Deprecated": v.get("deprecated", False),
            "DeprecationWarning": v.get("deprecationWarning"),
            "Schema": None,
            "Subresources": None,
            "AdditionalPrinterColumns": None,
            "SelectableFields": None,
        }
        for v in versions
    ]


def _structural(schema: Obj, path: str, errors: Errors, root: bool = False) -> None:
    """A structural schema gives every field a type."""
    free = schema.get("x-kubernetes-int-or-string") or schema.get(
        "x-kubernetes-preserve-unknown-fields"
    )
    if not schema.get("type") and not (free and not root):
        where = "at the root" if root else "for specified object fields"
        where = where if root or ".items" not in path else "for specified array items"
        errors.append(required(f"{path}.type", f"must not be empty {where}"))
    if root and schema.get("type") not in (None, "object"):
        errors.append(invalid_value(f"{path}.type", schema["type"], "must be object at the root"))
    if schema.get("type") == "array" and not schema.get("items"):
        errors.append(required(f"{path}.items", "must be specified"))
    for name, inner in (schema.get("properties") or {}).items():
        _structural(inner, f"{path}.properties[{name}]", errors)
    if isinstance(schema.get("items"), dict):
        _structural(schema["items"], f"{path}.items", errors)
    if isinstance(schema.get("additionalProperties"), dict):
        _structural(schema["additionalProperties"], f"{path}.additionalProperties", errors)


def _printer_column(column: Obj, path: str, errors: Errors) -> None:
    if not column.get("name"):
        errors.append(required(f"{path}.name"))
    type_ = column.get("type", "")
    if not type_:
        errors.append(required(f"{path}.type", f"must be one of {','.join(_COLUMN_TYPES)}"))
    elif type_ not in _COLUMN_TYPES:
        detail = f"must be one of {','.join(_COLUMN_TYPES)}"
        errors.append(invalid_value(f"{path}.type", type_, detail))
    where = column.get("jsonPath", "")
    if not where:
        errors.append(required(f"{path}.JSONPath"))
    elif not where.startswith("."):
        detail = "must be a simple json path starting with ."
        errors.append(invalid_value(f"{path}.JSONPath", where, detail))


def _definition_names(given: Obj, errors: Errors) -> None:
    for field in ("plural", "singular", "kind", "listKind"):
        value, at = given.get(field, ""), f"spec.names.{field}"
        if not value:
            errors.append(required(at))
        elif field in ("plural", "singular"):
            check_all(names.check_dns_1035_label(value), at, value, errors)
        else:
            for message in names.check_dns_1035_label(value.lower()):
                detail = f"may have mixed case, but should otherwise match: {message}"
                errors.append(invalid_value(at, value, detail))
    for i, short in enumerate(given.get("shortNames") or ()):
        check_all(names.check_dns_1035_label(short), f"spec.names.shortNames[{i}]", short, errors)
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        detail = "kind and listKind may not be the same"
        errors.append(invalid_value("spec.names.listKind", given["listKind"], detail))


def _conversion(conversion: Obj, errors: Errors) -> None:
    strategy = conversion.get("strategy", "")
    at = "spec.conversion.strategy"
    if not strategy:
        errors.append(required(at))
    else:
        one_of(strategy, ("None", "Webhook"), at, errors)
    webhook = conversion.get("webhook") or {}
    config, reviews = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    if strategy == "Webhook":
        if config is None:
            detail = "required when strategy is set to Webhook"
            errors.append(required("spec.conversion.webhookClientConfig", detail))
        else:
            client_config(config, "spec.conversion.webhookClientConfig", errors)
        _review_versions(reviews, errors)
        return
    detail = "should not be set when strategy is not set to Webhook"
    if config is not None:
        errors.append(forbidden_field("spec.conversion.webhookClientConfig", detail))
    if reviews:
        errors.append(forbidden_field("spec.conversion.conversionReviewVersions", detail))


def _review_versions(versions: list[str], errors: Errors) -> None:
    path = "spec.conversion.conversionReviewVersions"
    if not versions:
        errors.append(required(path))
        return
    for i, version in enumerate(versions):
        if version in versions[:i]:
            errors.append(invalid_value(f"{path}[{i}]", version, "duplicate version"))
        check_all(names.check_dns_1035_label(version), f"{path}[{i}]", version, errors)
    if not {"v1", "v1beta1"} & set(versions):
        detail = "must include at least one of v1, v1beta1"
        errors.append(invalid_value(path, versions, detail))


def validate_definition_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_definition(new, old)
    if (new["metadata"].get("annotations") or {}).get(_APPROVAL) != (
        old["metadata"].get("annotations") or {}
    ).get(_APPROVAL):
        _approved(new, errors)
    now, was = new.get("spec") or {}, old.get("spec") or {}
    for field in ("group", "scope"):
        if now.get(field) != was.get(field):
            errors.append(invalid_value(f"spec.{field}", now.get(field), "field is immutable"))
    for field in ("kind", "plural"):
        value = (now.get("names") or {}).get(field)
        if value != (was.get("names") or {}).get(field):
            at = f"spec.names.{field}"
            errors.append(invalid_value(at, value, "field is immutable"))
    return errors


_BAD_PORT = "port is not valid: must be between 1 and 65535, inclusive"


def client_config(config: Obj, path: str, errors: Errors) -> None:
    url, service = config.get("url"), config.get("service")
    if (url is None) is (service is None):
        errors.append(required(path, "exactly one of url or service is required"))
        return
    if service is None:
        _webhook_url(str(url), f"{path}.url", errors)
        return
    for field in ("name", "namespace"):
        if not service.get(field):
            errors.append(required(f"{path}.service.{'name' if field == 'namespace' else field}"))
    port = service.get("port", 443)
    if not 1 <= port <= 65535:
        errors.append(invalid_value(f"{path}.service.port", port, _BAD_PORT))
    where = service.get("path")
    if where and not where.startswith("/"):
        detail = "must start with a '/'"
        errors.append(invalid_value(f"{path}.service.path", where, detail))


def _webhook_url(url: str, path: str, errors: Errors) -> None:
    form = "url must be of the form https://host[:port]/path"
    parts = urlsplit(url)
    if parts.scheme != "https":
        detail = f"'https' is the only allowed URL scheme; {form}"
        errors.append(invalid_value(path, parts.scheme, detail))
    if not parts.netloc:
        errors.append(invalid_value(path, parts.netloc, f"host must be specified; {form}"))
    for value, text in (
        (parts.username, "user information is not permitted in the URL"),
        (parts.fragment, "fragments are not permitted in the URL"),
        (parts.query, "query parameters are not permitted in the URL"),
    ):
        if value:
            errors.append(invalid_value(path, value, text))


def validate_api_service(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    version, group = spec.get("version", ""), spec.get("group", "")
    wanted: Any = f"{version}.{group}"
    if o["metadata"].get("name") != wanted:
        detail = f'must be `spec.version+"."+spec.group`: "{wanted}"'
        errors.append(invalid_value("metadata.name", o["metadata"].get("name", ""), detail))
    if not version:
        errors.append(required("spec.version"))
    low, high = spec.get("groupPriorityMinimum", 0), spec.get("versionPriority", 0)
    if not 0 < low <= 20000:
        detail = "must be positive and less than 20000"
        errors.append(invalid_value("spec.groupPriorityMinimum", low, detail))
    if not 0 < high <= 1000:
        detail = "must be positive and less than 1000"
        errors.append(invalid_value("spec.versionPriority", high, detail))
    bundle, trusting = spec.get("caBundle") or "", spec.get("insecureSkipTLSVerify", False)
    service, at = spec.get("service"), "spec.insecureSkipTLSVerify"
    if service is None:
        if bundle:
            size = len(bundle) * 3 // 4 - bundle.count("=")
            detail = "local APIServices may not have a caBundle"
            errors.append(invalid_value("spec.caBundle", f"{size} bytes", detail))
        if trusting:
            detail = "local APIServices may not have insecureSkipTLSVerify"
            errors.append(invalid_value(at, trusting, detail))
        return errors
    for field in ("namespace", "name"):
        if not service.get(field):
            errors.append(required(f"spec.service.{field}"))
    port = service.get("port", 443)
    if not 1 <= port <= 65535:
        errors.append(invalid_value("spec.service.port", port, _BAD_PORT))
    if trusting and bundle:
        errors.append(invalid_value(at, trusting, "may not be true if caBundle is present"))
    return errors
