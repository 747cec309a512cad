"""Flags that several commands share: addresses and TLS files."""

from __future__ import annotations

import argparse
import os

from raftkv.cli.output import UsageError
from raftkv.host import Address, Tls, parse_address
from raftkv.os_host import load_tls

__all__ = ["add_tls", "address_of", "tls_of"]


def add_tls(parser: argparse.ArgumentParser, prefix: str, what: str) -> None:
    for part, meaning in (
        ("ca", "authority's certificate"),
        ("cert", "certificate"),
        ("key", "private key"),
    ):
        parser.add_argument(f"{prefix}-{part}", metavar="FILE", help=f"PEM {meaning} {what}")


def tls_of(arguments: argparse.Namespace, prefix: str) -> Tls | None:
    """The contexts of `--PREFIX-ca/-cert/-key`, None without them."""
    files = [getattr(arguments, f"{prefix}_{part}") for part in ("ca", "cert", "key")]
    if not any(files):
        return None
    if not all(files):
        flag = prefix.replace("_", "-")
        raise UsageError(f"--{flag}-ca, --{flag}-cert and --{flag}-key belong together")
    for file in files:
        if not os.path.exists(file):
            raise UsageError(f"{file} does not exist")
    return load_tls(ca=files[0], certificate=files[1], key=files[2])


def address_of(text: str, flag: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error
