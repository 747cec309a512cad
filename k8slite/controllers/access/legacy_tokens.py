"""Old tokens of service accounts, in Secrets that were made for them: unused ones go.

`plan` is pure. After a year without use a Secret is marked invalid, and deleted after another year;
one that a pod mounts stays. Only Secrets that their account lists are looked at: those that people
have made are theirs.
"""

from __future__ import annotations

from collections.abc import Iterable

from k8slite.api import meta
from k8slite.api.kinds import CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS
from k8slite.api.meta import Obj, format_time, labels, make_key, name, namespace, parse_time, uid
from k8slite.api.status import ApiError
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, delete, patch_metadata
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out

__all__ = ["plan", "run_legacy_token_cleaner"]

TYPE = "kubernetes.io/service-account-token"
ACCOUNT, ACCOUNT_UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
LAST_USED = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
NOT_FOUND = 404


def day_of(text: str | None) -> float | None:
    """Of a label such as 2026-01-31; None if it says no day."""
    try:
        return parse_time(f"{text}T00:00:00Z")
    except ValueError:
        return None


def plan(
    secret: Obj, account: Obj | None, mounted: bool, tracked_since: float, now: float, period: float
) -> list[Action]:
    """`tracked_since`: since when uses are noted; before that much has passed, nobody knows."""
    notes = meta.annotations(secret)
    if secret.get("type") != TYPE or account is None or uid(account) != notes.get(ACCOUNT_UID):
        return []
    if all(each.get("name") != name(secret) for each in account.get("secrets") or ()):
        return []
    if mounted or tracked_since + period > now:
        return []
    used = day_of(labels(secret).get(LAST_USED))
    if used is not None and used + period > now:
        return []
    invalid = labels(secret).get(INVALID_SINCE)
    since = day_of(invalid) if invalid else None
    if since is None:
        today = format_time(now)[:10]
        return [patch_metadata(SECRETS, secret, {"labels": {INVALID_SINCE: today}})]
    return [delete(SECRETS, secret)] if since + period <= now else []


def without_data(secret: Obj) -> Obj:
    """What is kept of a Secret here; its contents are not."""
    kept: Obj = {k: secret[k] for k in ("apiVersion", "kind", "metadata", "type") if k in secret}
    kept["metadata"].pop("managedFields", None)
    return kept


def mounted_secrets(pods: Iterable[Obj]) -> dict[str, None]:
    """Keys of the Secrets that pods mount."""
    found: dict[str, None] = {}
    for pod in pods:
        for volume in pod["spec"].get("volumes") or ():
            own = (volume.get("secret") or {}).get("secretName")
            if own:
                found[make_key(namespace(pod), own)] = None
    return found


async def run_legacy_token_cleaner(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("legacy-service-account-token-cleaner")
    secrets = context.informers.of(SECRETS, trim=without_data)
    accounts, pods = context.informer(SERVICE_ACCOUNTS), context.informer(PODS)
    period = context.timings.legacy_token_period

    def on_secret(old: Obj | None, new: Obj | None) -> None:
        if new is not None and new.get("type") == TYPE:
            queue.add(meta.key(new))

    async def tracked_since() -> float | None:
        """Since when the apiservers note which tokens are used; None: they do not."""
        try:
            tracking = await context.api.get(CONFIG_MAPS, TRACKING, "kube-system")
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            return None
        return day_of((tracking.get("data") or {}).get("since"))

    async def reconcile(where: str) -> float | None:
        secret = secrets.get(where)
        if secret is None:
            return None
        again = context.timings.legacy_token_sync
        since = await tracked_since()
        if since is None:
            return again
        own = make_key(namespace(secret), meta.annotations(secret).get(ACCOUNT, ""))
        mounted = where in mounted_secrets(pods.list())
        actions = plan(secret, accounts.get(own), mounted, since, context.host.now(), period)
        await carry_out(context.api, recorder, actions)
        return again

    secrets.add_handler(on_secret)
    for informer in (secrets, accounts, pods):
        await informer.wait_synced()
    await context.run_workers("legacy_token_cleaner", queue, reconcile)
