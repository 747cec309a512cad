"""Makes `k8slite/api/data/schema.json.gz` out of Kubernetes' own definitions. A development tool.

Inputs: the JSON schema of kubernetes-validate (a development dependency, Apache-2.0) and
`generate/protobuf.json.gz` (field numbers of every message, from Kubernetes' generated.proto
files). Run `python -m k8slite.api.generate.schema`; a test runs it and compares.

One entry per type, keyed by its short name ("core.v1.Container"):
  {"f": {json name: [form, numbers, extras?]}, "r": [required], "k": [group, version, kind],
   "n": the full name where it is not the usual one, "m": 1 where the struct is atomic}
form: "[" or "{" for a list or a map, then one of the codes of `SCALARS`, or "@" and a type's short
  name.
numbers: the protobuf numbers on the way to the field; two or more where Go embeds a struct.
extras: lt list type, mk map keys, ps patch strategy, pk patch merge key, mt map type,
  E the Go names of the embedded structs, p 1 where a scalar's zero is kept, v 1 where an absent
    time is null.
"""

from __future__ import annotations

import gzip
import json
import sys
from importlib.metadata import files
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from k8slite.api.generate.pointers import is_pointer, is_value_time
from k8slite.api.kinds import KINDS

VERSION = "v1.36.0"
SCALARS = {
    "string": "s",
    "int32": "i",
    "int64": "l",
    "boolean": "b",
    "number": "n",
    "byte": "B",
    "time": "t",
    "micro": "u",
    "quantity": "q",
    "intstr": "x",
    "any": "a",
}
_SPECIAL = {
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "t",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "u",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "x",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "a",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "a",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "a",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "a",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "a",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "a",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "a",
}
_EXTRAS = {
    "x-kubernetes-list-type": "lt",
    "x-kubernetes-list-map-keys": "mk",
    "x-kubernetes-patch-strategy": "ps",
    "x-kubernetes-patch-merge-key": "pk",
    "x-kubernetes-map-type": "mt",
}
_ROOTS = (
    "meta.v1.DeleteOptions",
    "meta.v1.Status",
    "meta.v1.ListMeta",
    "meta.v1.WatchEvent",
    "policy.v1.Eviction",
    "authentication.v1.TokenRequest",
    "autoscaling.v1.Scale",
    "core.v1.Binding",
)
_WITHOUT_SCHEMA = frozenset(("ComponentStatus",))


def short_name(name: str) -> str:
    return ".".join(name.rsplit(".", 3)[-3:]) if "resource.Quantity" not in name else name


def read_definitions() -> dict[str, Any]:
    wanted = f"{VERSION}-local/_definitions.json"
    for file in files("kubernetes-validate") or ():
        if str(file).endswith(wanted):
            document = json.loads(Path(str(file.locate())).read_text())
            definitions: dict[str, Any] = document.get("$defs") or document["definitions"]
            return definitions
    raise FileNotFoundError(f"{wanted}: install the development dependencies (kubernetes-validate)")


def read_messages() -> dict[str, Any]:
    packed = resources("k8slite.api.generate").joinpath("protobuf.json.gz").read_bytes()
    messages: dict[str, Any] = json.loads(gzip.decompress(packed))
    return messages


def field_numbers(messages: dict[str, Any], message: str, names: set[str]) -> dict[str, Any]:
    """JSON name -> (numbers, Go names of embedded structs); embedded messages are inlined."""
    found: dict[str, Any] = {}
    for proto_name, (number, _label, type_) in (messages.get(message) or {}).items():
        spelled = next((n for n in names if n.lower() == proto_name.lower()), None)
        if spelled is not None:
            found[spelled] = ([number], [])
        elif type_ in messages:
            inner_names = names - found.keys()
            inner = field_numbers(messages, type_, inner_names)
            go_name = type_.rsplit(".", 1)[1]
            for name, (numbers, embedded) in inner.items():
                found[name] = ([number, *numbers], [go_name, *embedded])
    return found


def form_of(schema: dict[str, Any], definitions: dict[str, Any], todo: list[str]) -> str:
    reference = schema.get("$ref")
    if reference is None and "allOf" in schema:
        reference = schema["allOf"][0]["$ref"]
    if reference is not None:
        target = reference.rsplit("/", 1)[1]
        if target in _SPECIAL:
            return _SPECIAL[target]
        if "properties" not in definitions[target]:
            return form_of(definitions[target], definitions, todo)
        todo.append(target)
        return "@" + short_name(target)
    type_ = schema.get("type", "any")
    if isinstance(type_, list):
        type_ = next(t for t in type_ if t != "null")
    if type_ == "array":
        return "[" + form_of(schema["items"], definitions, todo)
    if type_ == "object" and "additionalProperties" in schema:
        return "{" + form_of(schema["additionalProperties"], definitions, todo)
    if type_ == "object":
        return "a"
    if type_ == "integer":
        return SCALARS[schema.get("format", "int64")]
    if type_ == "string" and schema.get("format") == "byte":
        return "B"
    return SCALARS[type_]


def generate() -> dict[str, Any]:
    definitions, messages = read_definitions(), read_messages()
    by_short = {short_name(n): n for n in definitions}
    by_kind = {
        (k["group"], k["version"], k["kind"]): name
        for name, schema in definitions.items()
        if "io.k8s.apimachinery" not in name
        for k in schema.get("x-kubernetes-group-version-kind", ())
    }
    todo = [by_short[root] for root in _ROOTS]
    todo += [
        by_kind[kind.group, kind.version, kind.kind]
        for kind in KINDS
        if kind.kind not in _WITHOUT_SCHEMA or (kind.group, kind.version, kind.kind) in by_kind
    ]
    types: dict[str, Any] = {}
    while todo:
        name = todo.pop()
        short = short_name(name)
        if short in types:
            continue
        types[short] = type_entry(name, definitions, messages, todo)
    return dict(sorted(types.items()))


def type_entry(
    name: str, definitions: dict[str, Any], messages: dict[str, Any], todo: list[str]
) -> dict[str, Any]:
    schema, short = definitions[name], short_name(name)
    properties = schema.get("properties", {})
    numbers = field_numbers(messages, name.replace("io.k8s.", "k8s.io.", 1), set(properties))
    required = schema.get("required") or []
    entry: dict[str, Any] = {"f": {}}
    for field_name, field_schema in properties.items():
        form = form_of(field_schema, definitions, todo)
        path, embedded = numbers.get(field_name, ([], []))
        extras = {code: field_schema[k] for k, code in _EXTRAS.items() if k in field_schema}
        if embedded:
            extras["E"] = embedded
        scalar = len(form) == 1 and form in "silbnB"
        if scalar and (field_name in required or is_pointer(short, field_name, form)):
            extras["p"] = 1
        if is_value_time(short, field_name):
            extras["v"] = 1
        entry["f"][field_name] = [form, path, extras] if extras else [form, path]
    if required:
        entry["r"] = required
    if "io.k8s.apimachinery" not in name and schema.get("x-kubernetes-group-version-kind"):
        first = schema["x-kubernetes-group-version-kind"][0]
        entry["k"] = [first["group"], first["version"], first["kind"]]
    if name != full_name(short):
        entry["n"] = name
    if schema.get("x-kubernetes-map-type") == "atomic":
        entry["m"] = 1
    return entry


def full_name(short: str) -> str:
    """The OpenAPI name of most types; the others carry theirs under "n"."""
    return f"io.k8s.api.{short}"


def pack(types: dict[str, Any]) -> bytes:
    text = json.dumps(types, separators=(",", ":"), sort_keys=True)
    return gzip.compress(text.encode(), 9, mtime=0)


def main() -> None:
    target = resources("k8slite.api").joinpath("data", "schema.json.gz")
    packed = pack(generate())
    Path(str(target)).write_bytes(packed)
    sys.stdout.write(f"{target}: {len(packed)} bytes\n")


if __name__ == "__main__":
    main()
