"""The entry point: `k8slite COMMAND`.

Exit codes: 0 done; 1 it could not be done, in one line on stderr; 2 the command line is wrong; 3
the cluster is stopped (`status`); 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from k8slite.cli import bench, chaos, cluster, demo, images
from k8slite.cli.output import CommandFailed, UsageError
from k8slite.cluster.layout import NoSuchCluster
from k8slite.cluster.spec import InvalidSpec

__all__ = ["main"]

EPILOG = """\
  k8slite up --detach        a cluster of 3 control planes and 2 nodes, ready in seconds
  export KUBECONFIG=$(k8slite status -o json | ...)    or the line that `up` prints
  kubectl get nodes
  k8slite chaos kill raft-leader
  k8slite down
"""


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    made = argparse.ArgumentParser(
        prog="k8slite",
        description="A highly available Kubernetes that one can hold in the hand.",
        epilog=f"examples:\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = importlib.metadata.version("k8slite")
    made.add_argument("--version", action="version", version=f"k8slite {version}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for group in (cluster, chaos, images, bench, demo):
        group.add_commands(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parsed = parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except (CommandFailed, NoSuchCluster, InvalidSpec) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, InvalidSpec) else 1
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # `k8slite logs | head` has seen enough
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
