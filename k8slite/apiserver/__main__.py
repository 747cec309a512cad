"""`python -m k8slite.apiserver`: one apiserver by itself, over members that run elsewhere.

For benchmarks and for looking at it alone; clusters are made by `k8slite up`.
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import logging
import ssl
import sys
from pathlib import Path

import trio

from k8slite.apiserver.audit.files import Rotation
from k8slite.apiserver.config import ApiserverConfig, StaticToken, StoreConfig
from k8slite.apiserver.server import open_apiserver
from raftkv.host import parse_address
from raftkv.os_host import OsHost

GC_THRESHOLDS = (50_000, 50, 100)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m k8slite.apiserver", description=__doc__)
    add = parser.add_argument
    add("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="default: %(default)s")
    add("--store", default="", metavar="HOST:PORT,...", help="raftkv members; none: in memory")
    add("--tls-cert-file", metavar="FILE", help="serve TLS with this certificate (PEM)")
    add("--tls-private-key-file", metavar="FILE", help="and this key")
    add("--client-ca-file", metavar="FILE", help="whose certificates name users")
    add("--token-auth-file", metavar="FILE", help="lines of token,user,uid,group")
    add("--service-account-signing-key-file", metavar="FILE", help="a private key (PEM)")
    add("--authentication-config", default="", metavar="FILE", help="AuthenticationConfiguration")
    add(
        "--authentication-token-webhook-config-file",
        default="",
        metavar="FILE",
        help="a kubeconfig of a server that reviews tokens",
    )
    add("--authorization-config", default="", metavar="FILE", help="AuthorizationConfiguration")
    add("--encryption-provider-config", default="", metavar="FILE", help="of stored values")
    add("--audit-policy-file", default="", metavar="FILE", help="a Policy: what to tell of whom")
    add("--audit-log-path", default="-", metavar="FILE", help="where to (default: the output)")
    add("--audit-log-maxage", type=int, default=0, metavar="DAYS", help="of old files")
    add("--audit-log-maxbackup", type=int, default=0, metavar="N", help="old files kept")
    add("--audit-log-maxsize", type=int, default=0, metavar="MB", help="of one (default: 100)")
    return parser


def _tokens(path: str | None) -> tuple[StaticToken, ...]:
    if path is None:
        return ()
    rows = csv.reader(io.StringIO(Path(path).read_text()))
    return tuple(
        StaticToken(row[0], row[1], row[2], tuple(",".join(row[3:]).replace('"', "").split(",")))
        for row in rows
        if len(row) >= 3
    )


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if not arguments.tls_cert_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=arguments.client_ca_file)
    context.load_cert_chain(arguments.tls_cert_file, arguments.tls_private_key_file)
    context.verify_mode = ssl.CERT_OPTIONAL if arguments.client_ca_file else ssl.CERT_NONE
    return context


async def _serve(config: ApiserverConfig) -> None:
    async with open_apiserver(config, OsHost(config.identity)) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await trio.sleep_forever()


def main() -> int:
    """The command; its exit code."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING)
    key = arguments.service_account_signing_key_file
    endpoints = tuple(parse_address(text) for text in arguments.store.split(",") if text)
    try:
        config = ApiserverConfig(
            listen=(parse_address(arguments.listen),),
            store=StoreConfig(endpoints),
            tls=_tls(arguments),
            tokens=_tokens(arguments.token_auth_file),
            service_account_private_key=Path(key).read_bytes() if key else b"",
            authentication_config=arguments.authentication_config,
            token_webhook=arguments.authentication_token_webhook_config_file,
            authorization_config=arguments.authorization_config,
            encryption_config=arguments.encryption_provider_config,
            audit_policy=arguments.audit_policy_file,
            audit_log=arguments.audit_log_path,
            audit_rotation=Rotation(
                arguments.audit_log_maxage,
                arguments.audit_log_maxbackup,
                arguments.audit_log_maxsize,
            ),
        )
        trio.run(_serve, config)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"apiserver: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
