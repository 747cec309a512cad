"""Users by the tokens of other issuers (OpenID Connect), as an AuthenticationConfiguration says.

`user_of` is pure. Keys are fetched when a token needs them: the issuer's discovery document names
their place; a token by an unknown key has them fetched again, but not more often than every
REFRESH_SECONDS.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson
import trio

from k8slite.api.cel import EvaluationError, Program
from k8slite.api.meta import Obj
from k8slite.apiserver.auth.configuration import Issuer, Mapping, Rule
from k8slite.apiserver.auth.jose import (
    InvalidToken,
    PublicKey,
    Token,
    read_keys,
    read_token,
    verifies,
)
from k8slite.apiserver.auth.remote import Remote, RemoteError
from k8slite.apiserver.backends import Backends
from k8slite.apiserver.call import User

__all__ = ["OpenIdConnect", "user_of"]

log = logging.getLogger(__name__)

REFRESH_SECONDS = 10.0
FETCH_SECONDS = 10.0


def user_of(issuer: Issuer, claims: Obj, now: float) -> User:
    """Whom the claims of a verified token name. Raises InvalidToken with the reason."""
    audience = claims.get("aud") or []
    audience = [audience] if isinstance(audience, str) else audience
    if not any(each in audience for each in issuer.audiences):
        raise InvalidToken("expected audience in " + ", ".join(issuer.audiences))
    if not _number(claims, "nbf", 0) <= now < _number(claims, "exp", 0):
        raise InvalidToken("token is expired, or not good yet")
    for rule in issuer.claim_rules:
        _check(rule, claims, "claims")
    name = _value(issuer.username, claims)
    if not isinstance(name, str) or not name:
        raise InvalidToken("the username is no text, or empty")
    if issuer.username.claim == "email" and claims.get("email_verified") is False:
        raise InvalidToken("the email is not verified")
    user = User(
        name,
        str((issuer.uid and _value(issuer.uid, claims)) or ""),
        _texts(issuer.groups and _value(issuer.groups, claims), "groups"),
        {
            key: values
            for key, program in issuer.extra
            if (values := _texts(_evaluate(program, claims), key))
        },
    )
    shown = {"username": user.name, "uid": user.uid, "groups": list(user.groups),
             "extra": {key: list(values) for key, values in user.extra.items()}}  # fmt: skip
    for rule in issuer.user_rules:
        _check(rule, shown, "user")
    return user


def _number(claims: Obj, key: str, default: float) -> float:
    value = claims.get(key, default)
    return float(value) if isinstance(value, int | float) else default


def _check(rule: Rule, value: Obj, variable: str) -> None:
    if rule.expression is None:
        if value.get(rule.claim) != rule.value:
            raise InvalidToken(f'validation rule: the claim "{rule.claim}" is not as required')
    elif _evaluate(rule.expression, value, variable) is not True:
        raise InvalidToken(f"validation expression failed: {rule.message}")


def _evaluate(program: Program, value: Any, variable: str = "claims") -> Any:
    try:
        return program.evaluate({variable: value})
    except EvaluationError as error:
        raise InvalidToken(f"expression {program.source!r}: {error}") from None


def _value(mapping: Mapping, claims: Obj) -> Any:
    if mapping.expression is not None:
        return _evaluate(mapping.expression, claims)
    found = claims.get(mapping.claim)
    if isinstance(found, list):
        return [mapping.prefix + each if isinstance(each, str) else each for each in found]
    return mapping.prefix + found if isinstance(found, str) else found


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise InvalidToken(f"{what}: must be text or a list of texts")
    return tuple(each for each in values if each)


class OpenIdConnect:
    """Tokens of any of these issuers."""

    def __init__(self, issuers: tuple[Issuer, ...], backends: Backends) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._backends = backends
        self._keys: dict[str, dict[str, PublicKey]] = {}
        self._fetched_at: dict[str, float] = {}

    async def user_of(self, text: str, now: float) -> User | None:
        """None for tokens that are none of theirs, or no good."""
        try:
            token = read_token(text)
            issuer = self._issuers.get(str(token.claims.get("iss")))
            if issuer is None:
                return None
            if not await self._is_signed(issuer, token):
                raise InvalidToken("no key of the issuer has signed it")
            return user_of(issuer, token.claims, now)
        except InvalidToken as error:
            log.info("refused a token: %s", error)
            return None

    async def _is_signed(self, issuer: Issuer, token: Token) -> bool:
        if self._by_known_key(issuer, token):
            return True
        fetched = self._fetched_at.get(issuer.url, -REFRESH_SECONDS)
        if trio.current_time() - fetched < REFRESH_SECONDS:
            return False
        self._fetched_at[issuer.url] = trio.current_time()
        try:
            with trio.fail_after(FETCH_SECONDS):
                self._keys[issuer.url] = await self._fetch(issuer)
        except (RemoteError, ValueError, trio.TooSlowError) as error:
            log.warning("no keys of issuer=%s: %s", issuer.url, error or "too slow")
            return False
        return self._by_known_key(issuer, token)

    def _by_known_key(self, issuer: Issuer, token: Token) -> bool:
        keys = self._keys.get(issuer.url, {})
        key = keys.get(token.key_id)
        if key is not None:
            return verifies(key, token)
        return not token.key_id and any(verifies(each, token) for each in keys.values())

    async def _fetch(self, issuer: Issuer) -> dict[str, PublicKey]:
        """Raises RemoteError, ValueError."""
        document = await self._get(issuer, issuer.discovery_url)
        if not isinstance(document, dict) or document.get("issuer") != issuer.url:
            raise ValueError("its discovery document is of another issuer")
        return read_keys(await self._get(issuer, str(document.get("jwks_uri", ""))))

    async def _get(self, issuer: Issuer, url: str) -> Any:
        answer = await Remote(self._backends, url, issuer.ca).send("GET", None)
        return orjson.loads(answer)
