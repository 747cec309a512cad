"""Environments with Kubernetes' functions: declarations out of tables, types as messages.

Values of Kubernetes' own types (quantities, URLs, addresses...) are messages with one text in
them, its canonical form, so that `==` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)

from k8slite.api.cel import (
    addresses,
    formats,
    lists,
    macros,
    quantities,
    strings,
    urls,
    versions,
)
from k8slite.api.cel.authorizer import ask, question, with_part

__all__ = ["message", "new_environment"]

_TEXT_FIELD = 1
_TYPE_STRING = 9
_LABEL_OPTIONAL = 1
_NAMES = {
    "Q": "kubernetes.Quantity",
    "U": "kubernetes.URL",
    "V": "kubernetes.Semver",
    "I": "net.IP",
    "C": "net.CIDR",
    "A": "kubernetes.authorization.Authorizer",
    "P": "kubernetes.authorization.PathCheck",
    "G": "kubernetes.authorization.GroupCheck",
    "R": "kubernetes.authorization.ResourceCheck",
    "D": "kubernetes.authorization.Decision",
    "F": "kubernetes.NamedFormat",
}


def _make_pool(messages: Any = None) -> Any:
    pool = descriptor_pool.DescriptorPool()
    if messages is not None:
        for known in (struct_pb2, timestamp_pb2, duration_pb2):
            pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        pool.AddSerializedFile(messages.SerializeToString())
    packages: dict[str, Any] = {}
    for full_name in _NAMES.values():
        package, _, name = full_name.rpartition(".")
        file = packages.get(package)
        if file is None:
            file = packages[package] = descriptor_pb2.FileDescriptorProto(
                name=f"{package}.proto", package=package, syntax="proto3"
            )
        file.message_type.add(name=name).field.add(
            name="text", number=_TEXT_FIELD, type=_TYPE_STRING, label=_LABEL_OPTIONAL
        )
    for file in packages.values():
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _make_pool()
_CLASSES = {
    code: message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))
    for code, name in _NAMES.items()
}
_CODES = frozenset(_CLASSES.values())
_HIDDEN = {"f": "F"}
"""Results that the checker must not know, for `macros` makes them optional."""
_T = cel.Type
_KINDS = {
    "b": _T.BOOL,
    "i": _T.INT,
    "u": _T.UINT,
    "d": _T.DOUBLE,
    "s": _T.STRING,
    "y": _T.BYTES,
    "n": _T.NULL,
    "t": _T.TIMESTAMP,
    "e": _T.DURATION,
    "L": _T.List(_T.DYN),
    "S": _T.List(_T.STRING),
    "m": _T.Map(_T.DYN, _T.DYN),
    "M": _T.Map(_T.STRING, _T.List(_T.STRING)),
    "*": _T.DYN,
    **dict.fromkeys(_HIDDEN, _T.DYN),
    **{code: _T(name) for code, name in _NAMES.items()},
}


def message(code: str, text: str) -> Any:
    """A value of one of Kubernetes' own types."""
    return _CLASSES[code](text=text)


_Signature = tuple[str, str, Callable[..., Any]]
"""Parameters, result, implementation."""


def _dispatch(signatures: list[_Signature]) -> Callable[..., Any]:
    """One function for all overloads that the evaluator cannot tell apart: by their messages."""
    by_types: dict[tuple[Any, ...], _Signature] = {}
    for signature in signatures:
        by_types[tuple(_CLASSES.get(code) for code in signature[0])] = signature

    def call(*given: Any) -> Any:
        types = tuple(type(v) if type(v) in _CODES else None for v in given)
        found = by_types.get(types)
        if found is None:
            raise ValueError("no such overload")
        value = found[2](*(v if t is None else v.text for v, t in zip(given, types, strict=True)))
        wrap = _CLASSES.get(_HIDDEN.get(found[1], found[1]))
        return value if wrap is None else wrap(text=value)

    ours = _NAMES.keys() | _HIDDEN.keys()
    if all(code not in ours for types, result, _ in signatures for code in types + result):
        assert len(signatures) == 1, signatures
        return signatures[0][2]
    return call


def _decision(key: str) -> Callable[[str], Any]:
    return lambda text: question(text)[key]


def _part(key: str) -> Callable[[str, str], str]:
    return lambda text, value: with_part(text, key, value)


_AUTHORIZER: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    (".path", "As", "P", _part("path")),
    (".group", "As", "G", _part("group")),
    (".serviceAccount", "Ass", "A", lambda t, ns, name: with_part(t, "account", f"{ns}:{name}")),
    (".resource", "Gs", "R", _part("resource")),
    (".subresource", "Rs", "R", _part("subresource")),
    (".namespace", "Rs", "R", _part("namespace")),
    (".name", "Rs", "R", _part("name")),
    (".fieldSelector", "Rs", "R", lambda text, _: text),
    (".labelSelector", "Rs", "R", lambda text, _: text),
    (".check", "Ps", "D", ask),
    (".check", "Rs", "D", ask),
    (".allowed", "D", "b", _decision("allowed")),
    (".reason", "D", "s", _decision("reason")),
    (".errored", "D", "b", lambda _: False),
    (".error", "D", "s", lambda _: ""),
)

_TABLES = (
    strings.FUNCTIONS,
    lists.FUNCTIONS,
    urls.FUNCTIONS,
    quantities.FUNCTIONS,
    addresses.FUNCTIONS,
    versions.FUNCTIONS,
    formats.FUNCTIONS,
    macros.FUNCTIONS,
    _AUTHORIZER,
)


_PATCHES = (
    ("jsonpatch.escapeKey", "s", "s", lambda key: key.replace("~", "~0").replace("/", "~1")),
)


def _functions(tables: Iterable[Iterable[tuple[Any, ...]]]) -> list[Any]:
    """Declarations; a name that begins with a dot is a method of its first parameter."""
    named: dict[str, dict[str, list[_Signature]]] = {}
    for table in tables:
        for name, parameters, result, implementation in table:
            for types in _each(parameters):
                # The evaluator knows that a value is a message, not which.
                alike = "".join("Q" if code in _NAMES else code for code in types)
                found = named.setdefault(name, {}).setdefault(alike, [])
                found.append((types, result, implementation))
    overloads: dict[str, list[Any]] = {}
    for name, groups in named.items():
        plain = name.removeprefix(".")
        declared = overloads.setdefault(plain, [])
        for signatures in groups.values():
            for i, (types, result, _) in enumerate(signatures):
                first: dict[str, Any] = {} if i else {"impl": _dispatch(signatures)}
                declared.append(
                    cel.Overload(
                        f"{plain}_{len(declared)}_{types}",
                        return_type=_KINDS[result],
                        parameters=[_KINDS[code] for code in types],
                        is_member=name.startswith("."),
                        **first,
                    )
                )
    return [cel.FunctionDecl(name, found) for name, found in overloads.items()]


def _each(parameters: str) -> Iterable[str]:
    """`?` stands for any scalar: the evaluator wants an overload for each."""
    if "?" not in parameters:
        return (parameters,)
    return [parameters.replace("?", code) for code in "bidsyte"]


def new_environment(
    variables: tuple[str, ...],
    *,
    patches: bool = False,
    messages: Any = None,
    typed: Mapping[str, Any] | None = None,
    functions: bool = True,
) -> Any:
    """Where expressions may name these variables, and those of known types.

    `patches`: with the functions for making them; `messages` (a FileDescriptorProto): with these
    types.
    """
    declared = {**dict.fromkeys(variables, _T.DYN), **(typed or {})}
    if "authorizer" in declared:
        declared["authorizer"] = _KINDS["A"]
        declared["authorizer.requestResource"] = _KINDS["R"]
    return cel.NewEnv(
        _POOL if messages is None else _make_pool(messages),
        variables=declared,
        extensions=[ext_optional.ExtOptional()],
        functions=_functions((*_TABLES, _PATCHES) if patches else _TABLES) if functions else (),
    )
