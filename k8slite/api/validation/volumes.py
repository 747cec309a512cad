"""Volumes of pods. A table of one function per source; exactly one source per volume."""

from __future__ import annotations

import re
from collections.abc import Callable

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from k8slite.api.validation.claims import claim_spec
from k8slite.api.validation.common import (
    Errors,
    check_all,
    one_of,
)
from k8slite.api.validation.environment import (
    VOLUME_FIELDS,
    field_reference,
    local_path,
    resource_field_reference,
)
from k8slite.api.validation.objectmeta import validate_annotations, validate_labels

MODE_MESSAGE = "must be a number between 0 and 0777 (octal), both inclusive"
_PARTITION = "must be between 1 and 255, inclusive"
Check = Callable[[Obj, str, Errors], None]


def validate_volumes(volumes: list[Obj], path: str, errors: Errors) -> dict[str, Obj]:
    """The well-named volumes by name, for the mounts that refer to them."""
    known: dict[str, Obj] = {}
    for i, volume in enumerate(volumes):
        at = f"{path}[{i}]"
        before = len(errors)
        validate_source(volume, at, errors)
        name = volume.get("name", "")
        named: Errors = []
        if not name:
            named.append(required(f"{at}.name"))
        else:
            check_all(names.check_dns_label(name), f"{at}.name", name, named)
            if name in known:
                named.append(duplicate(f"{at}.name", name))
        errors += named
        if len(errors) == before:
            known[name] = volume
    return known


def validate_source(volume: Obj, path: str, errors: Errors) -> None:
    count = 0
    for field, check in SOURCES.items():
        source = volume.get(field)
        if source is None:
            continue
        at = f"{path}.{_PATHS.get(field, field)}"
        if count:
            errors.append(forbidden_field(at, "may not specify more than 1 volume type"))
        else:
            check(source, at, errors)
        count += 1
    if count == 0:
        errors.append(required(path, "must specify a volume type"))


_PATHS = {"gcePersistentDisk": "persistentDisk"}


def needs(*fields: str) -> Check:
    def check(source: Obj, path: str, errors: Errors) -> None:
        for field in fields:
            if not source.get(field):
                errors.append(required(f"{path}.{field}"))

    return check


def _empty_dir(source: Obj, path: str, errors: Errors) -> None:
    if "sizeLimit" in source and source["sizeLimit"].startswith("-"):
        errors.append(
            forbidden_field(
                f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"
            )
        )


_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)


def host_path(source: Obj, path: str, errors: Errors) -> None:
    where = source.get("path", "")
    if not where:
        errors.append(required(f"{path}.path"))
        return
    if ".." in where.split("/"):
        errors.append(invalid_value(f"{path}.path", where, "must not contain '..'"))
    one_of(source.get("type", ""), _HOST_PATH_TYPES, f"{path}.type", errors)


def _git_repo(source: Obj, path: str, errors: Errors) -> None:
    if not source.get("repository"):
        errors.append(required(f"{path}.repository"))
    if source.get("directory"):
        local_path(source["directory"], f"{path}.directory", errors)


def partitioned(*fields: str) -> Check:
    def check(source: Obj, path: str, errors: Errors) -> None:
        needs(*fields)(source, path, errors)
        partition = source.get("partition", 0)
        if not 0 <= partition <= 255:
            errors.append(invalid_value(f"{path}.partition", partition, _PARTITION))

    return check


def nfs(source: Obj, path: str, errors: Errors) -> None:
    needs("server", "path")(source, path, errors)
    where = source.get("path", "")
    if not where.startswith("/"):
        errors.append(invalid_value(f"{path}.path", where, "must be an absolute path"))


def iscsi(source: Obj, path: str, errors: Errors) -> None:
    needs("targetPortal")(source, path, errors)
    iqn = source.get("iqn", "")
    if not iqn:
        errors.append(required(f"{path}.iqn"))
    else:
        _iqn(iqn, f"{path}.iqn", errors)
    lun = source.get("lun", 0)
    if not 0 <= lun <= 255:
        errors.append(invalid_value(f"{path}.lun", lun, "must be between 0 and 255, inclusive"))
    for field in ("chapAuthDiscovery", "chapAuthSession"):
        if source.get(field) and "secretRef" not in source:
            errors.append(required(f"{path}.secretRef"))
    initiator = source.get("initiatorName")
    if initiator is not None:
        _iqn(initiator, f"{path}.initiatorname", errors)


def _iqn(iqn: str, path: str, errors: Errors) -> None:
    prefix = iqn[:3]
    patterns = {
        "iqn": r"iqn\.\d{4}-\d{2}\.([a-zA-Z0-9.-]+)(:[^,;*&$|\s]+)",
        "eui": r"eui.[0-9a-fA-F]{16}",
        "naa": r"naa.[0-9a-fA-F]{32}",
    }
    if prefix not in patterns or not re.match(patterns[prefix] + "$", iqn):
        errors.append(
            invalid_value(path, iqn, "must be valid format starting with iqn, eui, or naa")
        )


def _mode(value: int | None, path: str, errors: Errors) -> None:
    if value is not None and not 0 <= value <= 0o777:
        errors.append(invalid_value(path, value, MODE_MESSAGE))


def _key_to_path(items: list[Obj], path: str, errors: Errors) -> None:
    for i, item in enumerate(items):
        at = f"{path}[{i}]"
        if not item.get("key"):
            errors.append(required(f"{at}.key"))
        if not item.get("path"):
            errors.append(required(f"{at}.path"))
        else:
            local_path(item["path"], f"{at}.path", errors)
        _mode(item.get("mode"), f"{at}.mode", errors)


def _keyed(name: str) -> Check:
    def check(source: Obj, path: str, errors: Errors) -> None:
        if not source.get(name):
            errors.append(required(f"{path}.{name}"))
        _mode(source.get("defaultMode"), f"{path}.defaultMode", errors)
        _key_to_path(source.get("items") or [], f"{path}.items", errors)

    return check


def _downward(source: Obj, path: str, errors: Errors) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", errors)
    for item in source.get("items") or ():
        downward_file(item, path, errors)


def downward_file(item: Obj, path: str, errors: Errors) -> None:
    if not item.get("path"):
        errors.append(required(f"{path}.path"))
    else:
        local_path(item["path"], f"{path}.path", errors)
    if "fieldRef" in item:
        field_reference(item["fieldRef"], VOLUME_FIELDS, f"{path}.fieldRef", errors)
        if "resourceFieldRef" in item:
            detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errors.append(invalid_value(path, "resource", detail))
    elif "resourceFieldRef" in item:
        resource_field_reference(item["resourceFieldRef"], f"{path}.resourceFieldRef", errors, True)
    else:
        errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    _mode(item.get("mode"), f"{path}.mode", errors)


def _projected(source: Obj, path: str, errors: Errors) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", errors)
    taken: set[str] = set()

    def claim(where: str, at: str) -> None:
        if not where:
            return
        if where in taken:
            errors.append(invalid_value(at, where, "conflicting duplicate paths"))
        taken.add(where)

    for i, item in enumerate(source.get("sources") or ()):
        _projected_source(item, f"{path}.sources[{i}]", path, claim, errors)


def _projected_source(
    item: Obj, path: str, outer: str, claim: Callable[[str, str], None], errors: Errors
) -> None:
    if len(item) > 1:
        at = f"{path}.{list(item)[1]}"
        errors.append(forbidden_field(at, "may not specify more than 1 volume type"))
    for field in ("secret", "configMap"):
        if field in item:
            if not item[field].get("name"):
                errors.append(required(f"{path}.{field}.name"))
            _key_to_path(item[field].get("items") or [], f"{path}.{field}.items", errors)
            for entry in item[field].get("items") or ():
                claim(entry.get("path", ""), outer)
    if "downwardAPI" in item:
        for entry in item["downwardAPI"].get("items") or ():
            downward_file(entry, f"{path}.downwardAPI", errors)
            claim(entry.get("path", ""), outer)
    if "serviceAccountToken" in item:
        _token_projection(item["serviceAccountToken"], path, outer, errors)
        claim(item["serviceAccountToken"].get("path", ""), outer)
    if "clusterTrustBundle" in item:
        _trust_bundle(item["clusterTrustBundle"], f"{path}.clusterTrustBundle", errors)
        claim(item["clusterTrustBundle"].get("path", ""), outer)


def _token_projection(token: Obj, path: str, outer: str, errors: Errors) -> None:
    seconds = token.get("expirationSeconds", 3600)
    at = f"{path}.serviceAccountToken.expirationSeconds"
    if seconds < 600:
        errors.append(invalid_value(at, seconds, "may not specify a duration less than 10 minutes"))
    elif seconds > 1 << 32:
        errors.append(
            invalid_value(at, seconds, "may not specify a duration larger than 2^32 seconds")
        )
    if not token.get("path"):
        errors.append(required(f"{outer}.path"))
    else:
        local_path(token["path"], f"{outer}.path", errors)


def _trust_bundle(bundle: Obj, path: str, errors: Errors) -> None:
    if not bundle.get("path"):
        errors.append(required(f"{path}.path"))
    else:
        local_path(bundle["path"], f"{path}.path", errors)
    using_name, using_signer = bundle.get("name") is not None, bundle.get("signerName") is not None
    if using_name and using_signer:
        detail = "only one of name and signerName may be used"
        errors.append(invalid_value(path, _go_bundle(bundle), detail))
    elif not using_name and not using_signer:
        errors.append(required(path, "either name or signerName must be specified"))


def _go_bundle(bundle: Obj) -> Obj:
    return {
        "Name": bundle.get("name"),
        "SignerName": bundle.get("signerName"),
        "LabelSelector": bundle.get("labelSelector"),
        "Optional": bundle.get("optional"),
        "Path": bundle.get("path", ""),
    }


def _fc(source: Obj, path: str, errors: Errors) -> None:
    wwns, wwids = source.get("targetWWNs"), source.get("wwids")
    detail = "must specify either targetWWNs or wwids, but not both"
    if not wwns and not wwids:
        errors.append(required(f"{path}.targetWWNs", detail))
    if wwns and wwids:
        errors.append(invalid_value(f"{path}.targetWWNs", wwns, detail))
    if wwns and not wwids:
        lun = source.get("lun")
        if lun is None:
            errors.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
        elif not 0 <= lun <= 255:
            errors.append(invalid_value(f"{path}.lun", lun, "must be between 0 and 255, inclusive"))


def _flocker(source: Obj, path: str, errors: Errors) -> None:
    dataset, uuid = source.get("datasetName"), source.get("datasetUUID")
    if not dataset and not uuid:
        errors.append(required(path, "one of datasetName and datasetUUID is required"))
    if dataset and uuid:
        detail = "datasetName and datasetUUID can not be specified simultaneously"
        errors.append(invalid_value(path, "resource", detail))
    if dataset and "/" in dataset:
        errors.append(invalid_value(f"{path}.datasetName", dataset, "must not contain '/'"))


def _azure_disk(source: Obj, path: str, errors: Errors) -> None:
    name, uri = source.get("diskName", ""), source.get("diskURI", "")
    if not name:
        errors.append(required(f"{path}.diskName"))
    if not uri:
        errors.append(required(f"{path}.diskURI"))
    if "cachingMode" in source:
        one_of(
            source["cachingMode"], ("None", "ReadOnly", "ReadWrite"), f"{path}.cachingMode", errors
        )
    kind = source.get("kind", "Shared")
    one_of(kind, ("Dedicated", "Managed", "Shared"), f"{path}.kind", errors)
    managed = (
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/"
        "{disk-id}"
    )
    blob = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        errors.append(not_supported(f"{path}.diskURI", uri, (managed,)))
    if kind != "Managed" and not uri.startswith("https://"):
        errors.append(not_supported(f"{path}.diskURI", uri, (blob,)))


def _quobyte(source: Obj, path: str, errors: Errors) -> None:
    registry = source.get("registry", "")
    detail = "must be a host:port pair or multiple pairs separated by commas"
    if not registry:
        errors.append(required(f"{path}.registry", detail))
    elif len(registry) >= 65536:
        errors.append(invalid_value(f"{path}.registry", registry, detail))
    else:
        for pair in registry.split(","):
            if not re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):[^:]*", pair):
                errors.append(invalid_value(f"{path}.registry", registry, detail))
    if len(source.get("tenant", "")) >= 65:
        errors.append(
            required(
                f"{path}.tenant", "must be a UUID and may not exceed a length of 64 characters"
            )
        )
    if not source.get("volume"):
        errors.append(required(f"{path}.volume"))


def _storage_os(source: Obj, path: str, errors: Errors) -> None:
    name, space = source.get("volumeName", ""), source.get("volumeNamespace", "")
    if not name:
        errors.append(required(f"{path}.volumeName"))
    else:
        check_all(names.check_dns_label(name), f"{path}.volumeName", name, errors)
    if space:
        check_all(names.check_dns_label(space), f"{path}.volumeNamespace", space, errors)
    _secret_reference(source, path, errors)


def _secret_reference(source: Obj, path: str, errors: Errors) -> None:
    if "secretRef" in source and not source["secretRef"].get("name"):
        errors.append(required(f"{path}.secretRef.name"))


def _cinder(source: Obj, path: str, errors: Errors) -> None:
    needs("volumeID")(source, path, errors)
    _secret_reference(source, path, errors)


def _csi(source: Obj, path: str, errors: Errors) -> None:
    csi_driver_name(source.get("driver", ""), f"{path}.driver", errors)
    reference = source.get("nodePublishSecretRef")
    if reference is None:
        return
    name = reference.get("name", "")
    if not name:
        errors.append(required(f"{path}.nodePublishSecretRef.name"))
    else:
        check_all(names.check_dns_subdomain(name), f"{path}.name", name, errors)


def csi_driver_name(name: str, path: str, errors: Errors) -> None:
    if not name:
        errors.append(required(path))
        return
    if len(name) > 63:
        errors.append(too_long(path, 63))
    check_all(names.check_dns_subdomain(name.lower()), path, name, errors)


_CLAIM_META_FORBIDDEN = (
    "name",
    "generateName",
    "namespace",
    "finalizers",
    "ownerReferences",
)


def _ephemeral(source: Obj, path: str, errors: Errors) -> None:
    template = source.get("volumeClaimTemplate")
    at = f"{path}.volumeClaimTemplate"
    if template is None:
        errors.append(required(at))
        return
    metadata = template.get("metadata") or {}
    if metadata.get("annotations"):
        validate_annotations(metadata["annotations"], f"{at}.metadata.annotations", errors)
    if metadata.get("labels"):
        validate_labels(metadata["labels"], f"{at}.metadata.labels", errors)
    for field in _CLAIM_META_FORBIDDEN:
        if metadata.get(field):
            errors.append(forbidden_field(f"{at}.metadata.{field}", "cannot be set"))
    claim_spec(template.get("spec") or {}, f"{at}.spec", errors)


def _image(source: Obj, path: str, errors: Errors) -> None:
    if not source.get("reference"):
        errors.append(required(f"{path}.reference"))
    policy = source.get("pullPolicy", "")
    if policy:
        one_of(policy, ("Always", "IfNotPresent", "Never"), f"{path}.pullPolicy", errors)
    else:
        errors.append(required(f"{path}.pullPolicy"))


SOURCES: dict[str, Check] = {
    "emptyDir": _empty_dir,
    "hostPath": host_path,
    "gitRepo": _git_repo,
    "gcePersistentDisk": partitioned("pdName"),
    "awsElasticBlockStore": partitioned("volumeID"),
    "secret": _keyed("secretName"),
    "nfs": nfs,
    "iscsi": iscsi,
    "glusterfs": needs("endpoints", "path"),
    "flocker": _flocker,
    "persistentVolumeClaim": needs("claimName"),
    "rbd": needs("monitors", "image"),
    "cinder": _cinder,
    "cephfs": needs("monitors"),
    "quobyte": _quobyte,
    "downwardAPI": _downward,
    "fc": _fc,
    "flexVolume": needs("driver"),
    "configMap": _keyed("name"),
    "azureFile": needs("secretName", "shareName"),
    "vsphereVolume": needs("volumePath"),
    "photonPersistentDisk": needs("pdID"),
    "portworxVolume": needs("volumeID"),
    "azureDisk": _azure_disk,
    "storageos": _storage_os,
    "projected": _projected,
    "scaleIO": needs("gateway", "system", "volumeName"),
    "csi": _csi,
    "ephemeral": _ephemeral,
    "image": _image,
}
