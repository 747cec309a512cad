"""Recorded answers of kube-apiserver 1.36, compared word by word."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from k8slite.api.patch import merge_patch
from tests.api import replay

FIELDS = replay.load("fields.json.gz")
CREATIONS = replay.load("creations.json.gz")
KNOWN_DIFFERENT = frozenset(
    (
        ("Pod", "spec.ephemeralContainers.0.resources.claims"),  # Go tells [] from nothing
        ("Pod", "spec.resources.claims"),
        ("Pod", "spec.volumes.0.ephemeral.volumeClaimTemplate.metadata.finalizers"),
        ("Pod", "spec.volumes.0.ephemeral.volumeClaimTemplate.metadata.ownerReferences"),
        ("Pod", "spec.volumes.0.ephemeral.volumeClaimTemplate.spec.dataSourceRef"),
        ("Node", "spec.podCIDRs"),
        ("RuntimeClass", "scheduling.tolerations"),
        ("Job", "spec.successPolicy.rules.0.succeededIndexes"),
        ("StatefulSet", "spec.volumeClaimTemplates"),
    )
)


def _by_kind() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for case in FIELDS["cases"]:
        found[FIELDS["bases"][case[1]]["kind"]].append(case)
    return dict(found)


def _answer(path: str, body: Any, base: Any) -> tuple[int, Any]:
    status, answer = replay.create(path, body)
    if status == 201:
        return status, replay.difference(base, answer)
    answer = replay.normalise(answer)
    if status == 422:
        causes = (answer.get("details") or {}).get("causes", [])
        return status, [[c["field"], c["reason"], c["message"]] for c in causes]
    return status, answer["message"]


@pytest.mark.parametrize("kind", sorted(_by_kind()))
def test_one_changed_field_is_answered_as_recorded(kind: str) -> None:
    bases = [replay.create(b["path"], b["object"])[1] for b in FIELDS["bases"]]
    wrong = []
    for field, number, change, status, expected in _by_kind()[kind]:
        if (kind, field) in KNOWN_DIFFERENT:
            continue
        base = FIELDS["bases"][number]
        got = _answer(base["path"], merge_patch(base["object"], change), bases[number])
        if got != (status, replay.normalise(expected)):
            wrong.append((field, change, status, expected, got))
    assert not wrong


@pytest.mark.parametrize("exchange", CREATIONS, ids=lambda x: x["step"].replace(" ", "-"))
def test_a_creation_is_answered_as_recorded(exchange: Any) -> None:
    status, answer = replay.create(exchange["path"], exchange["body"], exchange["contentType"])
    assert status == exchange["status"]
    assert replay.normalise(answer) == replay.normalise(exchange["answer"])
