"""A registry, as the OCI distribution specification has it: manifests and blobs over HTTPS.

Authentication is what the registry asks for: Basic, or a token from the realm it names. Redirects
are followed, credentials never go to another host. A registry on this machine's loopback may have
any certificate, or none (plain HTTP), as with docker and containerd.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import orjson
import trio

from k8slite.client.http import Connection, ConnectionLost, ResponseHead, encode_request
from k8slite.kubelet.images.challenge import Challenge, parse_challenges
from k8slite.kubelet.images.credentials import Credential
from raftkv.host import Address, Net

__all__ = ["Manifest", "Registry", "RegistryError", "base_url"]

T = TypeVar("T")
HUB: Final = "docker.io"
HUB_URL: Final = "https://registry-1.docker.io"
MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024
TOKEN_BYTES_MAX: Final = 1024 * 1024
REDIRECTS_MAX: Final = 10
CONNECT_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 60.0
"""After how long without a byte a registry is given up."""
HINT: Final = "an image from a file: k8slite image load FILE"
USER_AGENT: Final = "k8slite"
ACCEPT: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


class RegistryError(Exception):
    """What the registry refused, or why it was not reached; for users.

    `transient`: trying again soon may help. `status`: HTTP's; 0: no answer.
    """

    def __init__(self, text: str, *, transient: bool = False, status: int = 0) -> None:
        super().__init__(text)
        self.transient = transient
        self.status = status


class _NoTls(RegistryError):
    pass


class Manifest(NamedTuple):
    body: bytes
    digest: str
    """As the registry says; "" where it does not."""


def base_url(domain: str) -> tuple[str, bool]:
    """(URL, whether it is on this machine)"""
    if domain == HUB:
        return HUB_URL, False
    host = (urlsplit(f"//{domain}").hostname or "").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return f"https://{domain}", True
    try:
        return f"https://{domain}", ipaddress.ip_address(host).is_loopback
    except ValueError:
        return f"https://{domain}", False


class Registry:
    """One repository, for one pull, as one of our identities. `repository`: `DOMAIN/PATH`."""

    def __init__(self, net: Net, repository: str, credential: Credential | None = None) -> None:
        self._net = net
        domain, _, self._path = repository.partition("/")
        self._base, self._is_local = base_url(domain)
        self._settled = not self._is_local
        self._credential = credential
        self._authorization = ""
        self._repository = repository

    async def manifest(self, reference: str) -> Manifest:
        """By tag or digest. Raises RegistryError."""
        path = f"manifests/{quote(reference, safe=':')}"
        async with self._open(path, {"accept": ACCEPT}) as (head, connection):
            self._check(head, await self._refusal(head, connection), reference)
            body = await _read(connection, MANIFEST_BYTES_MAX)
            return Manifest(body, head.headers.get("docker-content-digest", ""))

    async def blob(self, digest: str, offset: int, write: Callable[[bytes], Any]) -> None:
        """Hand all bytes from `offset` on to `write`; where the registry knows no ranges, those
        before are left out here. Raises RegistryError."""
        headers = {"range": f"bytes={offset}-"} if offset else {}
        async with self._open(f"blobs/{digest}", headers) as (head, connection):
            self._check(head, await self._refusal(head, connection), digest)
            skip = offset if head.status == 200 else 0
            while chunk := await _receive(connection):
                write(chunk[skip:])
                skip = max(0, skip - len(chunk))

    # ------------------------------------------------------------ asking

    @asynccontextmanager
    async def _open(
        self, path: str, headers: dict[str, str]
    ) -> AsyncIterator[tuple[ResponseHead, Connection]]:
        """The answer to a GET, once more with what the registry wants to know of us."""
        if not self._settled:
            await self._settle()
        url = f"{self._base}/v2/{self._path}/{path}"
        for attempt in (1, 2):
            async with self._follow(url, headers) as (head, connection):
                if head.status != 401 or attempt == 2:
                    yield head, connection
                    return
                challenges = parse_challenges(head.headers.get("www-authenticate", ""))
            await self._answer(challenges)
            if not self._authorization:
                raise self._denied("it asks for a user and a password")

    @asynccontextmanager
    async def _follow(
        self, url: str, headers: dict[str, str]
    ) -> AsyncIterator[tuple[ResponseHead, Connection]]:
        own = self._origin(url)
        for _ in range(REDIRECTS_MAX):
            more = dict(headers)
            if self._authorization and self._origin(url) == own:
                more["authorization"] = self._authorization
            connection = await self._connect(url)
            try:
                head = await _ask(connection, "GET", url, more)
                location = head.headers.get("location", "")
                if head.status not in (301, 302, 303, 307, 308) or not location:
                    yield head, connection
                    return
                url = urljoin(url, location)
            finally:
                await connection.aclose()
        raise RegistryError(f"{self._base}: more than {REDIRECTS_MAX} redirects")

    def _origin(self, url: str) -> tuple[str, str]:
        parts = urlsplit(url)
        return parts.scheme, parts.netloc

    async def _settle(self) -> None:
        """On this machine: whether the registry speaks TLS."""
        try:
            connection = await self._connect(self._base)
        except _NoTls:
            self._base = self._base.replace("https://", "http://", 1)
        else:
            await connection.aclose()
        self._settled = True

    async def _connect(self, url: str) -> Connection:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"{url} is no address of a registry")
        is_own = self._origin(url) == self._origin(self._base)
        address = Address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        stream = await self._dial(address)
        if parts.scheme == "http":
            return Connection(stream, address)
        context = ssl.create_default_context()
        if is_own and self._is_local:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        secure = trio.SSLStream(
            stream, context, server_hostname=address.host, https_compatible=True
        )
        try:
            with trio.fail_after(CONNECT_SECONDS):
                await secure.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError, OSError) as error:
            await trio.aclose_forcefully(stream)
            reason = error.__cause__ or error
            raise _NoTls(f"{address}: no TLS: {reason}") from error
        return Connection(secure, address)

    async def _dial(self, address: Address) -> trio.abc.Stream:
        try:
            with trio.fail_after(CONNECT_SECONDS):
                return await self._net.open_stream(address)
        except trio.TooSlowError:
            text = f"{address} does not answer within {CONNECT_SECONDS:g} s"
            raise RegistryError(f"{text} ({HINT})") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise RegistryError(f"{address} cannot be reached: {reason} ({HINT})") from error

    # ------------------------------------------------------------ who we are

    async def _answer(self, challenges: list[Challenge]) -> None:
        """Find what to send; "" where nothing can be."""
        self._authorization = ""
        own = self._credential
        for challenge in challenges:
            if challenge.scheme == "bearer":
                if own is not None and own.registry_token:
                    self._authorization = f"Bearer {own.registry_token}"
                else:
                    self._authorization = f"Bearer {await self._token(challenge.parameters)}"
                return
            if challenge.scheme == "basic" and own is not None and own.username:
                self._authorization = _basic(own)
                return

    async def _token(self, parameters: dict[str, str]) -> str:
        realm = parameters.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise RegistryError(f"{self._base} names no realm for tokens")
        fields = {key: parameters[key] for key in ("service", "scope") if parameters.get(key)}
        fields.setdefault("scope", f"repository:{self._path}:pull")
        own = self._credential
        method, headers, body = "GET", {}, None
        if own is not None and own.identity_token:
            method = "POST"
            form = {"grant_type": "refresh_token", "client_id": USER_AGENT}
            body = urlencode({**fields, **form, "refresh_token": own.identity_token}).encode()
            headers["content-type"] = "application/x-www-form-urlencoded"
        else:
            realm += ("&" if "?" in realm else "?") + urlencode(fields)
            if own is not None and own.username:
                headers["authorization"] = _basic(own)
        connection = await self._connect(realm)
        try:
            head = await _ask(connection, method, realm, headers, body)
            answer = await _read(connection, TOKEN_BYTES_MAX)
        finally:
            await connection.aclose()
        if head.status != 200:
            raise self._denied(f"{urlsplit(realm).netloc} gives no token: {_words(head, answer)}")
        try:
            document = orjson.loads(answer)
            token = document.get("token") or document.get("access_token")
        except (orjson.JSONDecodeError, AttributeError):
            token = None
        if not isinstance(token, str) or not token:
            raise RegistryError(f"{urlsplit(realm).netloc} answers without a token")
        return token

    # ------------------------------------------------------------ refusals

    async def _refusal(self, head: ResponseHead, connection: Connection) -> str:
        if head.status in (200, 206):
            return ""
        return _words(head, await _read(connection, TOKEN_BYTES_MAX))

    def _check(self, head: ResponseHead, words: str, what: str) -> None:
        if head.status in (200, 206):
            return
        if head.status in (401, 403):
            raise self._denied(words)
        if head.status == 404:
            text = f"{self._repository}: {what}: not found ({words})"
            raise RegistryError(text, status=head.status)
        transient = head.status == 429 or head.status >= 500
        text = f"unexpected status from GET of {self._repository}: {what}: {words}"
        raise RegistryError(text, transient=transient, status=head.status)

    def _denied(self, words: str) -> RegistryError:
        return RegistryError(
            "pull access denied, repository does not exist or may require authorization: "
            f"server message: {words}",
            status=401,
        )


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _words(head: ResponseHead, body: bytes) -> str:
    """The status, and the errors that a registry tells in JSON."""
    try:
        errors = orjson.loads(body)["errors"]
        told = "; ".join(f"{each.get('code')}: {each.get('message')}" for each in errors)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        told = ""
    return f"{head.status} {told}".strip()


async def _ask(
    connection: Connection,
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> ResponseHead:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = [("User-Agent", USER_AGENT), ("Connection", "close"), *headers.items()]
    data = encode_request(method, target, parts.netloc, fields, body)
    return await _patient(connection.request, data, where=str(connection.address))


async def _receive(connection: Connection) -> bytes:
    return await _patient(connection.receive, where=str(connection.address))


async def _patient(call: Callable[..., Awaitable[T]], *arguments: bytes, where: str) -> T:
    try:
        with trio.fail_after(SILENCE_SECONDS):
            return await call(*arguments)
    except trio.TooSlowError:
        text = f"{where} has been silent for {SILENCE_SECONDS:g} s"
        raise RegistryError(text, transient=True) from None
    except ConnectionLost as error:
        raise RegistryError(f"{where}: connection lost: {error}", transient=True) from error


async def _read(connection: Connection, limit: int) -> bytes:
    """A small body. Raises RegistryError for a large one."""
    body = bytearray()
    while chunk := await _receive(connection):
        body += chunk
        if len(body) > limit:
            raise RegistryError(f"{connection.address}: an answer of more than {limit} bytes")
    return bytes(body)
