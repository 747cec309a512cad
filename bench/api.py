"""What one apiserver does in a second: over three raftkv members, with TLS and JSON.

Starts members, an apiserver and the load generator as processes of their own, runs one load after
the other, and ends them all. `python -m bench.api`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import ipaddress
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.members import BenchFailed, environment, open_members

__all__ = ["add_arguments", "run", "run_api"]

TOKEN = "bench-token"
NAMESPACE = {"metadata": {"name": "bench"}}
ACCOUNT = {"metadata": {"name": "default"}}
LISTED = 4_000
STORED = 10_000
STOP_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--members", type=int, default=3, metavar="N", help="of the store (default: %(default)s)")
    add("--seconds", type=float, default=5.0, metavar="S", help="each load (default: %(default)s)")
    add("--only", default="", metavar="NAME,...", help="create,get,put,list,watch,memory")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    only = frozenset(name for name in arguments.only.split(",") if name)
    try:
        results = trio.run(run_api, arguments.members, arguments.seconds, only)
    except BenchFailed as error:
        sys.stderr.write(f"bench api: {error}\n")
        return 1
    if arguments.output == "json":
        print(json.dumps(results, indent=2))
        return 0
    print(f"{'LOAD':34}{'PER SECOND':>12}{'P50 MS':>10}{'P99 MS':>10}  NOTES")
    for name, found in results.items():
        notes = {k: v for k, v in found.items() if k not in ("per_second", "p50_ms", "p99_ms")}
        shown = " ".join(f"{k}={v}" for k, v in notes.items() if v)
        figures = [found.get(key, "") for key in ("per_second", "p50_ms", "p99_ms")]
        print(f"{name:34}{figures[0]:>12}{figures[1]:>10}{figures[2]:>10}  {shown}")
    return 0


async def run_api(members: int, seconds: float, only: frozenset[str]) -> dict[str, Any]:
    """All loads in turn: name -> figures. Raises BenchFailed."""
    with tempfile.TemporaryDirectory(prefix="bench-api-") as directory:
        path = Path(directory)
        async with open_members(members, path) as running:
            with _apiserver(path, ",".join(running.endpoints)) as (target, process):
                before = running.cpu_seconds()
                results = await trio.to_thread.run_sync(_loads, target, seconds, only, process.pid)
                after = running.cpu_seconds()
                spent = [round(b - a, 1) for a, b in zip(before, after, strict=True)]
                results["processor seconds"] = {
                    "members": spent, "apiserver": round(_cpu_seconds(process.pid), 1),
                }  # fmt: skip
                return results


def _loads(
    target: dict[str, Any], seconds: float, only: frozenset[str], apiserver: int
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with _load(target) as generator:

        def ask(name: str, **arguments: Any) -> Any:
            """A run; what the apiserver's processor spent on each of its requests (or events)."""
            before = _cpu_seconds(apiserver)
            found = generator(name, **arguments)
            done = found.get("requests") or found.get("events")
            if done:
                microseconds = (_cpu_seconds(apiserver) - before) / done * 1e6
                found["apiserver_us"] = round(microseconds, 1 if microseconds < 10 else None)
            return found

        ask("once", method="POST", path="/api/v1/namespaces", body=NAMESPACE)
        path = "/api/v1/namespaces/bench/serviceaccounts"
        ask("once", method="POST", path=path, body=ACCOUNT)

        def wanted(name: str) -> bool:
            return not only or name in only

        if wanted("create"):
            for clients in (1, 32):
                name = f"create a pod, {clients} clients"
                results[name] = ask(
                    "create", clients=clients, seconds=seconds, prefix=f"c{clients}"
                )
            _delete_all(ask)
        ask("fill", count=LISTED, prefix="p")
        if wanted("get"):
            results["get a pod, 32 clients"] = ask(
                "get", clients=32, seconds=seconds, prefix="p", count=LISTED
            )
        if wanted("put"):
            results["get then put a pod, 32 clients"] = ask(
                "get_put", clients=32, seconds=seconds, prefix="p"
            )
        if wanted("list"):
            results[f"list {LISTED} pods, 4 clients"] = ask("lists", clients=4, seconds=seconds)
        if wanted("watch"):
            for watchers in (100, 500):
                _delete_all(ask)
                results[f"events to {watchers} watchers"] = ask(
                    "watch", watchers=watchers, seconds=seconds, prefix=f"w-{watchers}", version="0"
                )
        if wanted("memory"):
            _delete_all(ask)
            ask("fill", count=STORED, prefix="m")
            megabytes = round(_resident(apiserver) / 1e6)
            results[f"memory with {STORED} pods"] = {"megabytes": megabytes}
    return results


def _delete_all(ask: Any) -> None:
    ask("once", method="DELETE", path="/api/v1/namespaces/bench/pods")


@contextlib.contextmanager
def _load(target: dict[str, Any]) -> Iterator[Any]:
    """A function that has the generator do a run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.api_load", json.dumps(target)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    send, receive = process.stdin, process.stdout

    def ask(name: str, **arguments: Any) -> Any:
        send.write(json.dumps([name, arguments]) + "\n")
        send.flush()
        line = receive.readline()
        if not line:
            raise BenchFailed(f"the load generator ended at {name}")
        return json.loads(line)

    try:
        yield ask
    finally:
        send.close()
        _end(process)


@contextlib.contextmanager
def _apiserver(
    directory: Path, store: str
) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """Where it is, and its process."""
    certificate, key = _certificate(directory)
    tokens = directory / "tokens.csv"
    tokens.write_text(f"{TOKEN},admin,u0,system:masters\n")
    command = [sys.executable, "-m", "k8slite.apiserver", "--store", store]
    command += ["--tls-cert-file", certificate, "--tls-private-key-file", key]
    command += ["--token-auth-file", str(tokens), "--service-account-signing-key-file", key]
    with (directory / "apiserver.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env=environment(), text=True
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise BenchFailed((directory / "apiserver.log").read_text()[-500:] or "no apiserver")
        host, _, port = url.removeprefix("https://").rpartition(":")
        yield {"host": host, "port": int(port), "ca": certificate, "token": TOKEN}, process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def _certificate(directory: Path) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(),
            now - datetime.timedelta(hours=1), now + datetime.timedelta(days=1),
        )
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = directory / "apiserver.pem", directory / "apiserver.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(paths[0]), str(paths[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
