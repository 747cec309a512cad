"""What policies of both sorts share: bindings, parameters, conditions, variables."""

from __future__ import annotations

import logging
import re
from typing import Any, NamedTuple

from k8slite.api.cel import CompileError, EvaluationError, Program, compile_expression
from k8slite.api.cel.patches import compile_patch
from k8slite.api.cel.program import ANY, BOOL
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.selectors import from_object
from k8slite.api.status import ApiError
from k8slite.api.validation.admission import policy_variables
from k8slite.apiserver.admission.dynamic.attributes import Attributes
from k8slite.apiserver.admission.dynamic.expressions import Bindings, conditions_hold
from k8slite.apiserver.admission.dynamic.matching import matching_kind
from k8slite.apiserver.forms import read
from k8slite.apiserver.versions import prepare
from k8slite.apiserver.watch_cache import Entry

__all__ = ["Evaluation", "Invocation", "invocations"]

log = logging.getLogger(__name__)

VALUE_MAX = 1024 * 1024
"""Variables whose text is longer are none: their sums could grow for ever."""
_VARIABLE = re.compile(r"\bvariables\.([A-Za-z_][A-Za-z0-9_]*)")


class Invocation(NamedTuple):
    """A policy through one of its bindings, and the version of the kind in which it looks.

    `parameters` are the objects to evaluate with, each in turn; None for no object. `error` says
    why there are none.
    """

    policy: Entry
    binding: Entry
    kind: Kind
    parameters: list[Obj | None]
    error: str = ""

    @property
    def spec(self) -> Obj:
        """The policy's."""
        found: Obj = self.policy.parsed().get("spec") or {}
        return found

    @property
    def ignores(self) -> bool:
        """Do errors let the request pass?"""
        return bool(self.spec.get("failurePolicy") == "Ignore")


async def invocations(attributes: Attributes, policies: Kind, bindings: Kind) -> list[Invocation]:
    """All policies that a request concerns, in the order of their and their bindings' names."""
    mirror = attributes.call.core.mirror
    found = []
    ordered = sorted(mirror.cache(bindings).entries.values(), key=_policy_name)
    for binding in ordered:
        bound = binding.parsed().get("spec") or {}
        policy = mirror.cache(policies).get("", bound.get("policyName", ""))
        if policy is None:
            continue
        spec = policy.parsed().get("spec") or {}
        narrower = bound.get("matchResources") or {}
        kind = _matches(attributes, spec.get("matchConstraints") or {}, every=False)
        if kind is None or (narrower and _matches(attributes, narrower, every=True) is None):
            continue
        try:
            parameters, problem = await _parameters(attributes, spec, bound), ""
        except LookupError as error:
            parameters, problem = [], f"failed to configure binding: {error.args[0]}"
        found.append(Invocation(policy, binding, kind, parameters, problem))
    return found


def _policy_name(binding: Entry) -> str:
    return str((binding.parsed().get("spec") or {}).get("policyName", ""))


def _matches(attributes: Attributes, match: Obj, *, every: bool) -> Kind | None:
    rules, exclude = match.get("resourceRules") or (), match.get("excludeResourceRules") or ()
    return matching_kind(attributes, match, rules, exclude, every=every)


async def _parameters(attributes: Attributes, spec: Obj, bound: Obj) -> list[Obj | None]:
    """The objects to evaluate with, each in turn. Raises LookupError."""
    wanted, reference = spec.get("paramKind"), bound.get("paramRef")
    if not wanted or not reference:
        return [None]
    kind = next(
        (
            k
            for k in attributes.call.core.kinds.all()
            if (k.api_version, k.kind) == (wanted["apiVersion"], wanted["kind"])
        ),
        None,
    )
    if kind is None:
        shown = f"{wanted['apiVersion']}, Kind={wanted['kind']}"
        raise LookupError(f"failed to find resource referenced by paramKind: '{shown}'")
    namespace = ""
    if not kind.namespaced and reference.get("namespace"):
        raise LookupError(
            "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
        )
    if kind.namespaced:
        namespace = reference.get("namespace") or attributes.namespace
        if not namespace:
            raise LookupError(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped "
                "resources"
            )
    core = attributes.call.core
    cache = core.mirror.cache(kind)
    if reference.get("name"):
        entry = cache.get(namespace, reference["name"])
        entries = [] if entry is None else [entry]
    else:
        selector = from_object(reference.get("selector"))
        entries = [
            entry
            for entry in cache.select(f"{namespace}/" if namespace else "")
            if selector.matches(entry.parsed()["metadata"].get("labels"))
        ]
    if not entries:
        if reference.get("parameterNotFoundAction") == "Allow":
            return []
        raise LookupError("no params found for policy binding with `Deny` parameterNotFoundAction")
    try:
        await prepare(core, kind, entries)
    except ApiError as error:
        raise LookupError(error.message) from None
    return [read(kind, entry) for entry in entries]


class Evaluation:
    """Of one policy, for one request and one parameter. Made by `make`."""

    def __init__(self, bindings: Bindings, spec: Obj, parameter: Any, *, patches: bool) -> None:
        self._spec = spec
        self._names = policy_variables(spec)
        self._bindings = bindings
        self._patches = patches
        bindings.with_namespace()
        self._known: Obj = {}
        bindings.values.update(params=parameter, variables=self._known)
        self._pending = {v["name"]: v["expression"] for v in spec.get("variables") or ()}

    @classmethod
    async def make(
        cls,
        attributes: Attributes,
        kind: Kind,
        spec: Obj,
        parameter: Any,
        *,
        patches: bool = False,
    ) -> Evaluation:
        """`patches`: expressions may make objects. Raises ApiError."""
        return cls(await Bindings.make(attributes, kind), spec, parameter, patches=patches)

    def applies(self) -> bool:
        """Do the match conditions hold? Raises EvaluationError."""
        conditions = self._spec.get("matchConditions") or []
        for condition in conditions:
            self._prepare(condition["expression"])
        return conditions_hold(conditions, self._bindings, self._names)

    def value(self, source: str, result: str) -> Any:
        """Of an expression. Raises CompileError, EvaluationError."""
        self._prepare(source)
        return self._bindings.run(self._compile(source.strip(), result))

    def holds(self, source: str) -> bool:
        """Is it true? Raises CompileError, EvaluationError."""
        return self.value(source, BOOL) is True

    def _compile(self, source: str, result: str) -> Program:
        if self._patches:
            return compile_patch(source, self._names, result)
        return compile_expression(source, self._names, result)

    def _prepare(self, source: str) -> None:
        """Compute the variables that an expression names; one without a value stays away."""
        for name in _VARIABLE.findall(source):
            expression = self._pending.pop(name, None)
            if expression is None:
                continue
            try:
                value = self.value(expression, ANY)
            except (CompileError, EvaluationError) as error:
                log.debug("variable=%s has no value: %s", name, error)
                continue
            if not isinstance(value, (str, bytes)) or len(value) <= VALUE_MAX:
                self._known[name] = value
