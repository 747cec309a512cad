"""Bootstrap tokens, which are secrets of kube-system, go when their time is over."""

from __future__ import annotations

import base64
import binascii

from k8slite.api.kinds import SECRETS
from k8slite.api.meta import Obj, deleting, key, namespace, parse_time
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import delete
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out

__all__ = ["expires_in", "run_token_cleaner"]

TYPE = "bootstrap.kubernetes.io/token"
NAMESPACE = "kube-system"


def expires_in(secret: Obj, now: float) -> float | None:
    """Seconds until the token is over (0: now, or nobody can read when); None: never (pure)."""
    if secret.get("type") != TYPE or namespace(secret) != NAMESPACE or deleting(secret):
        return None
    encoded = (secret.get("data") or {}).get("expiration")
    if not encoded:
        return None
    try:
        return max(0.0, parse_time(base64.b64decode(encoded).decode()) - now)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return 0.0


async def run_token_cleaner(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("token-cleaner")
    secrets = context.informer(SECRETS)

    def on_secret(old: Obj | None, new: Obj | None) -> None:
        if new is not None and new.get("type") == TYPE:
            queue.add(key(new))

    async def reconcile(where: str) -> float | None:
        secret = secrets.get(where)
        left = None if secret is None else expires_in(secret, context.host.now())
        if secret is not None and left == 0.0:
            await carry_out(context.api, recorder, [delete(SECRETS, secret)])
            return None
        return left

    secrets.add_handler(on_secret)
    await secrets.wait_synced()
    await context.run_workers("token-cleaner", queue, reconcile)
