"""How a request to an apiserver can fail without an answer of the apiserver's own.

Owns the exception tree of the client. An answer with an error status is not here: it is
`k8slite.api.status.ApiError`.
"""

from __future__ import annotations

from k8slite.api.status import ApiError

__all__ = ["REQUEST_ERRORS", "ClientError", "UnknownOutcome", "Unreachable"]


class ClientError(Exception):
    """The request got no answer."""


class Unreachable(ClientError):
    """No endpoint answered, and the request was certainly not executed (or was a read)."""


class UnknownOutcome(ClientError):
    """A write left this process and its answer never came: it may or may not have happened.

    The caller reads again and decides; the client never repeats such a write by itself, since
    the second execution could undo what somebody else did in between.
    """


REQUEST_ERRORS = (ApiError, ClientError)
"""What the wrapper of one key, watch or renewal may catch, log and try again."""
