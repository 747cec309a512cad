"""The entry point: `k8slite COMMAND`.

Exit codes: 0 done; 1 it could not be done, in one line on stderr; 2 the command line is wrong; 3
the cluster is stopped (`status`); 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from k8slite.cli import bench, chaos, demo, end, images, logs, status, up
from k8slite.cli.output import CommandFailed, UsageError
from k8slite.cluster.layout import NoSuchCluster
from k8slite.cluster.spec import InvalidSpec

__all__ = ["main"]

INTERRUPTED: Final = 130

EPILOG: Final = """\
examples:
  k8slite up --detach              3 control planes and 2 nodes, ready in seconds
  export KUBECONFIG=...            the line that `up` prints
  kubectl get nodes
  k8slite chaos kill raft-leader   and look at `k8slite status`
  k8slite down

Clusters are kept in $K8SLITE_HOME, else in ~/.local/share/k8slite; ~/.kube is never touched.
"""


class _Version(argparse.Action):
    """As argparse's own, which would look for the version at every command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import importlib.metadata

        print(f"k8slite {importlib.metadata.version('k8slite')}")
        parser.exit()


def parser(called: str = "bench") -> argparse.ArgumentParser:
    """All commands and their flags; those of `bench` only where it is called."""
    made = argparse.ArgumentParser(
        prog="k8slite",
        description="A highly available Kubernetes that one can hold in the hand.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action=_Version, nargs=0, help="show the version and leave")
    commands = made.add_subparsers(title="commands", metavar="COMMAND")
    for group in (up, end, status, logs, chaos, images, demo):
        group.add_commands(commands)
    bench.add_commands(commands, called=called == "bench")
    return made


def _open_standard_streams() -> None:
    """Whoever closed one (`>&-`) gets nothing, but no other file takes its place either."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115  # for good


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    _open_standard_streams()
    words = sys.argv[1:] if arguments is None else arguments
    made = parser(words[0] if words else "")
    parsed = made.parse_args(words)
    if not hasattr(parsed, "run"):
        made.print_help(sys.stderr)
        return 2
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except (UsageError, InvalidSpec) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (CommandFailed, NoSuchCluster) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # `k8slite logs | head` has seen enough
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        words = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        sys.stderr.write(f"error: {words}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
