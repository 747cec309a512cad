"""Which kind is written by which rules. Kinds not named here are ordinary."""

from __future__ import annotations

from k8slite.api.kinds import Kind
from k8slite.apiserver.kind_table import is_custom
from k8slite.apiserver.registry.custom import CustomStrategy, DefinitionStrategy
from k8slite.apiserver.registry.namespaces import NamespaceStrategy
from k8slite.apiserver.registry.pods import PodStrategy
from k8slite.apiserver.registry.services import ServiceStrategy
from k8slite.apiserver.registry.simple import (
    CertificateStrategy,
    ConfirmedStrategy,
    DeploymentStrategy,
    GivesBackStrategy,
    LaxStrategy,
)
from k8slite.apiserver.registry.strategy import Strategy

__all__ = ["strategy_of"]

_ORDINARY = Strategy()
_LAX = LaxStrategy()
_GIVES_BACK = GivesBackStrategy()
_CONFIRMED = ConfirmedStrategy()
_CUSTOM = CustomStrategy()

_STRATEGIES: dict[str, Strategy] = {
    "pods": PodStrategy(),
    "services": ServiceStrategy(),
    "namespaces": NamespaceStrategy(),
    "deployments.apps": DeploymentStrategy(),
    "certificatesigningrequests.certificates.k8s.io": CertificateStrategy(),
    "endpoints": _LAX,
    "events": _LAX,
    "events.events.k8s.io": _LAX,
    "limitranges": _LAX,
    "leases.coordination.k8s.io": LaxStrategy(unconditional=False),
    "podtemplates": _GIVES_BACK,
    "resourcequotas": _GIVES_BACK,
    "serviceaccounts": _GIVES_BACK,
    "persistentvolumes": _GIVES_BACK,
    "persistentvolumeclaims": _GIVES_BACK,
    "storageclasses.storage.k8s.io": _GIVES_BACK,
    "volumeattachments.storage.k8s.io": _GIVES_BACK,
    "csinodes.storage.k8s.io": _GIVES_BACK,
    "csidrivers.storage.k8s.io": _GIVES_BACK,
    "endpointslices.discovery.k8s.io": _CONFIRMED,
    "poddisruptionbudgets.policy": _CONFIRMED,
    "runtimeclasses.node.k8s.io": _CONFIRMED,
    "apiservices.apiregistration.k8s.io": _CONFIRMED,
    "customresourcedefinitions.apiextensions.k8s.io": DefinitionStrategy(),
}


def strategy_of(kind: Kind) -> Strategy:
    """The rules of a kind."""
    found = _STRATEGIES.get(kind.resource)
    if found is not None:
        return found
    return _CUSTOM if is_custom(kind) else _ORDINARY
