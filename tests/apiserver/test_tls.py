"""TLS: certificates name users and groups; without one a client is anonymous."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from k8slite.apiserver import open_apiserver
from raftkv.host import Address
from raftkv.os_host import OsHost, load_tls
from tests.apiserver.support import (
    Answer,
    encode_request,
    make_config,
    open_test_apiserver,
)

DAY = datetime.timedelta(days=1)


def make_name(user: str, *groups: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name(attributes)


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(make_name("ca"), self.key, is_ca=True)
        self.path = directory / "ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_ca: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(make_name("ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]),
                critical=False,
            )
        )
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, file: str, user: str, *groups: str) -> tuple[str, str]:
        """Paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(make_name(user, *groups), key, is_ca=False)
        paths = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(paths[0]), str(paths[1])


async def test_certificates_name_users(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "apiserver")
    server_tls = load_tls(
        ca=str(authority.path), certificate=certificate, key=key, require_client=False
    ).server
    async with open_test_apiserver_over(server_tls) as address:
        kubelet = ssl.create_default_context(cafile=str(authority.path))
        kubelet.load_cert_chain(*authority.issue("node", "system:node:n1", "system:nodes"))
        anonymous = ssl.create_default_context(cafile=str(authority.path))
        for context, user, groups in (
            (kubelet, "system:node:n1", ["system:nodes", "system:authenticated"]),
            (anonymous, "system:anonymous", ["system:unauthenticated"]),
        ):
            status, answer = await who_am_i(address, context)
            if user == "system:anonymous":
                assert status == 403
                assert user in answer["message"]
            else:
                assert answer["status"]["userInfo"] == {"username": user, "groups": groups}


@asynccontextmanager
async def open_test_apiserver_over(context: ssl.SSLContext) -> AsyncIterator[Address]:
    """The address of a server that speaks TLS; the usual fixture's own client does not."""
    async with open_apiserver(make_config(tls=context), OsHost("test")) as server:
        yield server.address


async def who_am_i(address: Address, context: ssl.SSLContext) -> tuple[int, dict[str, Any]]:
    stream = await trio.open_ssl_over_tcp_stream(
        address[0], address[1], ssl_context=context, https_compatible=True
    )
    async with stream:
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        await stream.send_all(encode_request("POST", path, {}, "application/json", "", ""))
        answer = Answer()
        while not answer.done:
            answer.feed(bytes(await stream.receive_some(65536)))
        return answer.status, orjson.loads(answer.body)


async def test_who_speaks_no_tls_is_left() -> None:
    async with open_test_apiserver() as server:
        stream = await trio.open_tcp_stream(*server.address)
        async with stream:
            await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            received = bytes(await stream.receive_some(1000))
            assert received.startswith(b"HTTP/1.1 400 ")
