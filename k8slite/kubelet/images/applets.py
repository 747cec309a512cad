"""A few applets of busybox, for machines without it: `httpd`, `sleep`, `wget`, and the smallest.

Called by the small programs that `builtin` writes; standard library alone. Never imported by
k8slite itself.
"""

from __future__ import annotations

import getopt
import http.server
import os
import signal
import socket
import socketserver
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any


def httpd(arguments: list[str]) -> int:
    """`httpd [-f] [-v] [-p [IP:]PORT] [-h HOME]`, always in the foreground."""
    options = dict(getopt.getopt(arguments, "fvp:h:c:u:r:")[0])
    address, _, port = options.get("-p", "80").rpartition(":")
    os.chdir(options.get("-h", "."))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *values: Any) -> None:  # noqa: A002
            if "-v" in options:
                super().log_message(format, *values)

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

    with Server((address, int(port)), Handler) as server:
        server.serve_forever()
    return 0


def sleep(arguments: list[str]) -> int:
    """`sleep N[smhd]... | infinity`"""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    if arguments == ["infinity"]:
        while True:
            signal.pause()
    total = 0.0
    for text in arguments:
        unit = units.get(text[-1:])
        total += float(text[:-1]) * unit if unit else float(text)
    time.sleep(total)
    return 0


def wget(arguments: list[str]) -> int:
    """`wget [-q] [-O FILE|-] [-T SECONDS] URL`"""
    options, rest = getopt.gnu_getopt(arguments, "qSO:T:t:", ["spider", "timeout="])
    chosen = dict(options)
    url = rest[0] if "://" in rest[0] else f"http://{rest[0]}"
    try:
        with urllib.request.urlopen(url, timeout=float(chosen.get("-T", "30"))) as answer:
            body = answer.read()
    except (urllib.error.URLError, OSError) as error:
        print(f"wget: {error}", file=sys.stderr)
        return 1
    target = chosen.get("-O", os.path.basename(url) or "index.html")
    if "--spider" in chosen:
        return 0
    if target == "-":
        sys.stdout.buffer.write(body)
    else:
        with open(target, "wb") as file:
            file.write(body)
    return 0


def nc(arguments: list[str]) -> int:
    """`nc [-z] [-w SECONDS] HOST PORT`: connects, and copies standard input."""
    options, rest = getopt.getopt(arguments, "zvw:")
    chosen = dict(options)
    address = (rest[0], int(rest[1]))
    try:
        with socket.create_connection(address, float(chosen.get("-w", "30"))) as sock:
            if "-z" in chosen:
                return 0
            sock.sendall(sys.stdin.buffer.read())
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                sys.stdout.buffer.write(data)
    except OSError as error:
        print(f"nc: {error}", file=sys.stderr)
        return 1
    return 0


APPLETS: dict[str, Callable[[list[str]], int]] = {
    "httpd": httpd,
    "sleep": sleep,
    "wget": wget,
    "nc": nc,
    "true": lambda _: 0,
    "false": lambda _: 1,
    "hostname": lambda _: print(os.environ.get("HOSTNAME") or socket.gethostname()) or 0,
}
