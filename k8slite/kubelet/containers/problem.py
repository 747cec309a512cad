"""Why a container cannot be started, as its status tells it."""

from __future__ import annotations

__all__ = ["StartProblem"]


class StartProblem(Exception):
    """`reason` and `message` as the status shows them; `image`: it was the image's fault."""

    def __init__(self, reason: str, message: str, *, image: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.image = image
