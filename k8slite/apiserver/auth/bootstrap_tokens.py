"""Bootstrap tokens, `abcdef.0123456789abcdef`: Secrets in kube-system by which nodes join.

Only a user of the group system:bootstrappers comes of one; the controller that throws expired ones
away may be late, so expiry is looked at here too.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re

from k8slite.api.kinds import SECRETS
from k8slite.api.meta import Obj, parse_time
from k8slite.apiserver.call import User
from k8slite.apiserver.mirror import Mirror

__all__ = ["user_of_bootstrap_token"]

NAMESPACE = "kube-system"
TYPE = "bootstrap.kubernetes.io/token"
GROUP = "system:bootstrappers"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


def user_of_bootstrap_token(mirror: Mirror, token: str, now: float) -> User | None:
    """The user of a token that is good now; None for any other token."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    ident, secret = match.groups()
    entry = mirror.cache(SECRETS).get(NAMESPACE, f"bootstrap-token-{ident}")
    if entry is None:
        return None
    obj = entry.parsed()
    if obj.get("type") != TYPE or obj["metadata"].get("deletionTimestamp"):
        return None
    known = _text(obj, "token-secret")
    if not hmac.compare_digest(known.encode(), secret.encode()) or _text(obj, "token-id") != ident:
        return None
    if _is_over(_text(obj, "expiration"), now):
        return None
    if _text(obj, "usage-bootstrap-authentication") != "true":
        return None
    extra = [g.strip() for g in _text(obj, "auth-extra-groups").split(",") if g.strip()]
    if not all(map(_GROUP.fullmatch, extra)):
        return None
    return User(f"system:bootstrap:{ident}", "", tuple(sorted({GROUP, *extra})))


def _text(secret: Obj, key: str) -> str:
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_over(expiration: str, now: float) -> bool:
    if not expiration:
        return False
    try:
        return now >= parse_time(expiration)
    except ValueError:
        return True
