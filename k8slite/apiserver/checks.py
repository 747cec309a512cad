"""Files of settings, checked before anything is started with them."""

from __future__ import annotations

from collections.abc import Callable

from k8slite.apiserver.audit.policy import read_policy
from k8slite.apiserver.auth.configuration import read_authentication, read_authorization
from k8slite.apiserver.store.encryption import read_encryption

__all__ = ["check_file"]

READERS: dict[str, Callable[[str], object]] = {
    "audit_policy_file": read_policy,
    "authentication_config": read_authentication,
    "authorization_config": read_authorization,
    "encryption_provider_config": read_encryption,
}


def check_file(setting: str, text: str) -> None:
    """Raises ValueError with what is wrong, and where in the file."""
    reader = READERS.get(setting)
    if reader is not None:
        reader(text)
