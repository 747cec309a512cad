"""What all handlers of one apiserver share. No behaviour of its own."""

from __future__ import annotations

from attrs import define, field

from k8slite.api.kinds import Kind
from k8slite.apiserver.aggregation.remotes import Remotes
from k8slite.apiserver.audit.log import AuditLog
from k8slite.apiserver.auth.authenticate import Authenticator
from k8slite.apiserver.auth.authorize import Authorizer
from k8slite.apiserver.auth.jwt import Signer
from k8slite.apiserver.backends import Backends
from k8slite.apiserver.config import ApiserverConfig
from k8slite.apiserver.flow.control import FlowControl
from k8slite.apiserver.http.crowd import Crowd
from k8slite.apiserver.kind_table import KindTable
from k8slite.apiserver.metrics import Metrics
from k8slite.apiserver.mirror import Mirror
from k8slite.apiserver.objects import storage_key, storage_kind
from k8slite.apiserver.store.base import Store
from k8slite.apiserver.store.encrypted import EncryptedStore
from k8slite.apiserver.summaries import Summaries
from k8slite.apiserver.watch_cache import Entry
from raftkv.host import Address, Host

__all__ = ["Core"]


@define(eq=False)
class Core:
    """The parts of a running server."""

    config: ApiserverConfig
    host: Host
    store: Store
    mirror: Mirror
    kinds: KindTable
    authenticator: Authenticator
    authorizer: Authorizer
    signer: Signer | None
    backends: Backends
    crowd: Crowd
    flow: FlowControl
    remotes: Remotes
    audit: AuditLog | None = None
    encrypted: EncryptedStore | None = None
    """The store, where values are encrypted."""
    metrics: Metrics = field(factory=Metrics)
    summaries: Summaries = field(factory=Summaries)
    addresses: tuple[Address, ...] = ()
    ready: dict[str, bool] = field(factory=dict)

    def is_stale(self, kind: Kind, entry: Entry) -> bool:
        """Is it encrypted otherwise than it would be now?"""
        if self.encrypted is None:
            return False
        key = storage_key(storage_kind(kind), entry.namespace, entry.name)
        return self.encrypted.is_stale(key)

    def now(self) -> float:
        """Wall clock, seconds since 1970."""
        return self.host.now()
