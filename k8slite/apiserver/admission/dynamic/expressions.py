"""CEL in admission: what expressions may name, and match conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from k8slite.api.cel import EvaluationError, Program, compile_expression
from k8slite.api.cel.program import BOOL
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.apiserver.admission.dynamic.attributes import Attributes
from k8slite.apiserver.auth import rbac
from k8slite.apiserver.call import User

__all__ = ["Bindings", "conditions_hold"]


class Bindings:
    """The variables of one request, and who answers questions about rights. Made by `make`."""

    def __init__(self, attributes: Attributes, values: dict[str, Any]) -> None:
        self._attributes = attributes
        self.values = values

    @classmethod
    async def make(cls, attributes: Attributes, kind: Kind) -> Bindings:
        """As a policy or webhook that looks at this version of the kind sees it. Raises ApiError
        where the objects cannot be converted.
        """
        values = {
            "object": await attributes.shown_as(kind, attributes.new),
            "oldObject": await attributes.shown_as(kind, attributes.old),
            "request": attributes.request(kind, ""),
        }
        return cls(attributes, values)

    def with_namespace(self) -> None:
        """Let expressions see the namespace."""
        self.values["namespaceObject"] = self._attributes.namespace_object()

    def evaluate(self, source: str, variables: tuple[str, ...], result: str) -> Any:
        """The value of an expression. Raises CompileError, EvaluationError."""
        return self.run(compile_expression(source.strip(), variables, result))

    def run(self, program: Program) -> Any:
        """The value of a compiled expression. Raises EvaluationError."""
        if "authorizer" in program.source:
            self._add_authorizer()
        return program.evaluate(self.values, self._authorize)

    def _add_authorizer(self) -> None:
        from k8slite.api.cel.library import message

        attributes = self._attributes
        asked = {
            "group": attributes.kind.group,
            "resource": attributes.kind.plural,
            "subresource": attributes.subresource,
            "namespace": attributes.namespace,
            "name": attributes.name,
        }
        self.values["authorizer"] = message("A", "")
        self.values["authorizer.requestResource"] = message("R", orjson.dumps(asked).decode())

    def _authorize(self, question: Mapping[str, Any]) -> tuple[bool, str]:
        user = self._attributes.call.user
        account = question.get("account")
        if account:
            namespace, _, name = account.partition(":")
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
            user = User(
                f"system:serviceaccount:{namespace}:{name}",
                "",
                (*groups, "system:authenticated"),
            )
        asked = rbac.Attributes(
            question.get("verb", ""),
            question.get("group", ""),
            question.get("resource", ""),
            question.get("subresource", ""),
            question.get("namespace", ""),
            question.get("name", ""),
            question.get("path", ""),
        )
        decision = self._attributes.call.core.authorizer.decide_here(user, asked)
        return decision.allowed, decision.reason


def conditions_hold(conditions: list[Obj], bindings: Bindings, variables: tuple[str, ...]) -> bool:
    """Do all match conditions hold? One that does not outweighs errors of others.

    Raises EvaluationError.
    """
    failed: EvaluationError | None = None
    for condition in conditions:
        try:
            if bindings.evaluate(condition["expression"], variables, BOOL) is not True:
                return False
        except EvaluationError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return True
