"""The authenticator and the authorizer that a config asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from k8slite.apiserver.auth.accounts import ServiceAccountTokens
from k8slite.apiserver.auth.authenticate import Authenticator, Ways
from k8slite.apiserver.auth.authorize import DEFAULT_CHAIN, Authorizer
from k8slite.apiserver.auth.configuration import (
    Anonymous,
    Authentication,
    read_authentication,
    read_authorization,
)
from k8slite.apiserver.auth.configuration import Authorizer as Settings
from k8slite.apiserver.auth.front_proxy import FrontProxy
from k8slite.apiserver.auth.jwt import Signer, Verifier
from k8slite.apiserver.auth.oidc import OpenIdConnect
from k8slite.apiserver.auth.rbac import Rbac
from k8slite.apiserver.auth.remote import from_kubeconfig
from k8slite.apiserver.auth.webhooks import TokenWebhook, WebhookAuthorizer
from k8slite.apiserver.backends import Backends
from k8slite.apiserver.config import ApiserverConfig
from k8slite.apiserver.mirror import Mirror

__all__ = ["make_authenticator", "make_authorizer"]

T = TypeVar("T")


def make_authenticator(
    config: ApiserverConfig, mirror: Mirror, backends: Backends, signer: Signer | None
) -> Authenticator:
    """Raises OSError, and ValueError that names the file and the field."""
    public_keys = config.service_account_public_keys
    if signer is not None:
        public_keys = public_keys or (signer.public_key(),)
    issuer, accounts = config.service_account_issuer, None
    if public_keys:
        accounts = ServiceAccountTokens(mirror, Verifier(public_keys), issuer)
    settings = Authentication()
    if config.authentication_config:
        settings = _read(config.authentication_config, read_authentication)
    webhook = None
    if config.token_webhook:
        webhook = TokenWebhook(from_kubeconfig(backends, config.token_webhook), (issuer,))
    proxy = None
    if config.proxy_client_ca:
        proxy = FrontProxy(config.proxy_client_ca, config.request_header_names)
    ways = Ways(
        config.tokens,
        accounts,
        OpenIdConnect(settings.issuers, backends) if settings.issuers else None,
        webhook,
        proxy,
        settings.anonymous or Anonymous(config.anonymous),
    )
    return Authenticator(mirror, ways)


def make_authorizer(config: ApiserverConfig, mirror: Mirror, backends: Backends) -> Authorizer:
    """Raises OSError, and ValueError that names the file and the field."""
    rbac = Rbac(mirror)
    if not config.authorization:
        return Authorizer(rbac, (Settings("AlwaysAllow"),))
    if not config.authorization_config:
        return Authorizer(rbac, DEFAULT_CHAIN)
    chain = _read(config.authorization_config, read_authorization)
    hooks = {
        each.name: WebhookAuthorizer(each, from_kubeconfig(backends, each.kubeconfig))
        for each in chain
        if each.type == "Webhook"
    }
    return Authorizer(rbac, chain, hooks)


def _read(path: str, read: Callable[[str], T]) -> T:
    try:
        return read(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
