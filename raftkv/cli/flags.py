"""Flags that several commands share: addresses and TLS files."""

from __future__ import annotations

import argparse
import os
import re
import zlib

from raftkv.cli.output import UsageError
from raftkv.host import Address, Tls, parse_address
from raftkv.os_host import load_tls

__all__ = ["add_tls", "address_of", "member_id", "peers_of", "tls_of"]


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


def member_id(name: str) -> int:
    """The number at the end of a name, or one made from the name."""
    match = re.search(r"(\d{1,9})$", name)
    return (int(match.group(1)) if match else 0) or zlib.crc32(name.encode()) or 1


def peers_of(text: str) -> dict[str, Address]:
    """`name=host:port,...` as a table."""
    peers: dict[str, Address] = {}
    for part in filter(None, text.split(",")):
        name, equals, address = part.partition("=")
        if not equals or not name:
            raise UsageError(f"--peers: {part!r} is not of the form NAME=HOST:PORT")
        if name in peers:
            raise UsageError(f"--peers: {name} is there twice")
        peers[name] = address_of(address, "--peers")
    return peers
