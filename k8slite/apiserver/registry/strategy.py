"""What differs between kinds when they are written: one small Strategy per kind that differs.

A Strategy says which parts of an object a write through the main path or through /status may
touch, what else must be written with it in the same commit, and how it is deleted. The verbs
themselves are in `writes` and `deletes` and know no kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api.defaults import apply_defaults
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, FieldError
from k8slite.api.strategies import (
    prepare_for_create,
    prepare_for_status_update,
    prepare_for_update,
)
from k8slite.api.validation import validate_create, validate_update
from k8slite.api.validation.objectmeta import validate_meta_update
from k8slite.apiserver.call import Call
from k8slite.apiserver.store.base import Write

__all__ = ["Strategy"]


class Strategy:
    """The rules of an ordinary kind."""

    create_on_update = False
    unconditional_update = True
    returns_deleted = False
    has_companions = False

    def decoded(self, call: Call, obj: Obj, level: str) -> None:
        """A body was decoded: drop what the kind does not know, as `level` says."""

    def defaults(self, call: Call, obj: Obj) -> None:
        """Fill in what the client left out."""
        apply_defaults(call.kind, obj)

    def validate_create(self, call: Call, obj: Obj) -> list[FieldError]:
        """Why a new object cannot be stored."""
        return validate_create(call.kind, obj)

    def validate_update(self, call: Call, new: Obj, old: Obj) -> list[FieldError]:
        """Why a change through the main path cannot be stored."""
        return validate_update(call.kind, new, old)

    def validate_status(self, call: Call, new: Obj, old: Obj) -> list[FieldError]:
        """Why a change through /status cannot be stored."""
        return validate_meta_update(new, old)

    def validate_part(self, call: Call, part: str, new: Obj, old: Obj) -> list[FieldError]:
        """Why a change through another subresource that writes a part cannot be stored."""
        return self.validate_update(call, new, old)

    def deletion_finalizers(self, call: Call, obj: Obj) -> tuple[str, ...]:
        """Finalizers that an object gets when its deletion begins."""
        return ()

    def prepare_create(self, call: Call, obj: Obj) -> None:
        """Reset what a creator may not say. After defaults and admission."""
        prepare_for_create(call.kind, obj)

    def prepare_update(self, call: Call, new: Obj, old: Obj) -> None:
        """Take from `old` what an update through the main path may not touch."""
        prepare_for_update(call.kind, new, old)

    def prepare_status(self, call: Call, new: Obj, old: Obj) -> None:
        """Take from `old` what an update through /status may not touch."""
        prepare_for_status_update(call.kind, new, old)
        owners = old["metadata"].get("ownerReferences")
        if owners is None:
            new["metadata"].pop("ownerReferences", None)
        else:
            new["metadata"]["ownerReferences"] = owners

    async def companions(self, call: Call, new: Obj | None, old: Obj | None) -> Sequence[Write]:
        """Other keys that must change in the same commit; may fill fields of `new`.

        Called again, with a fresh copy of `new`, when the commit met a conflict.
        """
        return ()

    def grace_seconds(self, obj: Obj, asked: int | None) -> int:
        """How long a deletion waits for somebody to confirm it; 0: not at all."""
        return 0

    def is_finished(self, obj: Obj) -> bool:
        """May an object that is being deleted vanish (besides its finalizers being gone)?"""
        return True

    def check_delete(self, call: Call, obj: Obj) -> ApiError | None:
        """Why it may not be deleted at all."""
        return None

    def mark_deleted(self, obj: Obj) -> None:
        """The object has just got its deletionTimestamp."""
