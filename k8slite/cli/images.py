"""`k8slite image pull | load | list | rm`: the images that nodes have."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from k8slite.cli.common import add_name, add_output, existing
from k8slite.cli.output import CommandFailed, print_json, print_table

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        "image",
        help="pull, load, list and remove images",
        description="The images of a cluster: all its nodes have them.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    load = actions.add_parser(
        "load",
        help="load an archive",
        description="Load an OCI layout (directory or tar) or an archive of `docker save`.",
    )
    load.add_argument("path", metavar="PATH", type=Path)
    load.add_argument("--as", dest="reference", default="", metavar="NAME", help="its name, where "
                      "the archive has none")  # fmt: skip
    load.set_defaults(run=_load)
    pull = actions.add_parser(
        "pull",
        help="fetch one from its registry",
        description="Fetch an image from its registry, with the users and passwords of "
        "~/.docker/config.json. A registry on this machine (localhost:5000/...) needs no TLS.",
    )
    pull.add_argument("image", metavar="IMAGE", help="its name, with tag or digest")
    pull.add_argument("--username", default="", help="another user than docker's")
    pull.add_argument(
        "--password-stdin", action="store_true", help="read that user's password from stdin"
    )
    pull.set_defaults(run=_pull)
    show = actions.add_parser("list", help="list them")
    add_output(show)
    show.set_defaults(run=_list)
    remove = actions.add_parser("rm", help="remove one")
    remove.add_argument("image", metavar="IMAGE", help="its name or id")
    remove.set_defaults(run=_remove)
    for each in (load, pull, show, remove):
        add_name(each)


def _store(arguments: argparse.Namespace) -> Any:
    from k8slite.kubelet.images.store import ImageStore

    return ImageStore(existing(arguments.name).images)


def _load(arguments: argparse.Namespace) -> int:
    from k8slite.kubelet.images.archive import BadArchive
    from k8slite.kubelet.images.reference import InvalidReference

    try:
        images = _store(arguments).load(arguments.path, name=arguments.reference)
    except (BadArchive, InvalidReference, OSError) as error:
        words = str(error).replace("\n- ", "; ").removeprefix(f"{arguments.path}: ")
        raise CommandFailed(f"{arguments.path} cannot be loaded: {words}") from error
    for image in images:
        print(f"loaded {', '.join(image.names) or image.id}")
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    import trio

    from k8slite.cli.pulling import Bars, credentials_for
    from k8slite.kubelet.images.pull import PullFailed, pull
    from k8slite.kubelet.images.reference import InvalidReference, parse_reference
    from raftkv.os_host import TcpNet

    if bool(arguments.username) != arguments.password_stdin:
        raise CommandFailed("--username and --password-stdin go together")
    try:
        reference = parse_reference(arguments.image)
    except InvalidReference as error:
        raise CommandFailed(str(error)) from error
    password = sys.stdin.readline().rstrip("\n") if arguments.password_stdin else ""
    credentials = credentials_for(reference.repository, arguments.username, password)
    store = _store(arguments)
    with Bars(sys.stderr) as bars:
        try:
            image = trio.run(pull, store, reference, credentials, TcpNet(), bars.show)
        except PullFailed as failure:
            raise CommandFailed(str(failure)) from failure
    print(f"pulled {reference} ({image.digest})")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    images = _store(arguments).images()
    if arguments.output == "json":
        print_json(
            [{"id": i.id, "names": list(i.names), "size_bytes": i.size_bytes} for i in images]
        )
        return 0
    if not images:
        sys.stderr.write("No image is loaded; busybox (any tag) is built in.\n")
        return 0
    rows = [
        (name, image.id[:19], f"{image.size_bytes / 1e6:.1f} MB")
        for image in images
        for name in (image.names or ("<none>",))
    ]
    print_table(("NAME", "ID", "SIZE"), rows)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    from k8slite.kubelet.images.uses import Uses

    store, text = _store(arguments), arguments.image
    used = Uses(store.directory / "used", "").in_use()
    for image in store.images():
        is_last_name = len(image.names) < 2 or text in (image.id, image.id.removeprefix("sha256:"))
        if image.id in used and is_last_name and store.is_named(image, text):
            raise CommandFailed(f"image {text!r} is in use by a container")
    if not store.remove(text):
        raise CommandFailed(f"there is no image {arguments.image!r}: k8slite image list")
    print(f"removed {arguments.image}")
    return 0
