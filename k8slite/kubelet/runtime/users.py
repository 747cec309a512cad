"""Who a container runs as: a user looked up in the image's own passwd and group files."""

from __future__ import annotations

from pathlib import Path

from k8slite.kubelet.runtime.bundle import Identity
from k8slite.kubelet.runtime.interface import ConfigFailure, Security


def read_in_layers(layers: tuple[Path, ...], name: str) -> list[list[str]]:
    """The colon-separated lines of a file of the image; none if it has no such file."""
    for layer in reversed(layers):
        path = layer / name
        if path.is_symlink():  # it could lead out of the image
            return []
        if path.is_file():
            text = path.read_text(errors="replace")
            return [line.split(":") for line in text.splitlines() if line and line[0] != "#"]
    return []


def identity_of(security: Security, image_user: str, layers: tuple[Path, ...]) -> Identity:
    """User, group and further groups. Raises ConfigFailure for a user the image does not know."""
    passwd = [row for row in read_in_layers(layers, "etc/passwd") if len(row) >= 4]
    group = [row for row in read_in_layers(layers, "etc/group") if len(row) >= 4]
    user_text, _, group_text = image_user.partition(":")
    if security.user is not None:
        user_text, group_text = str(security.user), ""
    row = next((row for row in passwd if user_text in (row[0], row[2])), None)
    if user_text.isdigit():
        uid = int(user_text)
    elif not user_text:
        uid = 0
        row = next((row for row in passwd if row[2] == "0"), None)
    elif row is not None:
        uid = int(row[2])
    else:
        raise ConfigFailure(f"unable to find user {user_text}: no matching entries in passwd file")
    gid = int(row[3]) if row is not None and row[3].isdigit() else 0
    if group_text:
        known = next((r for r in group if group_text in (r[0], r[2])), None)
        if known is None and not group_text.isdigit():
            raise ConfigFailure(
                f"unable to find group {group_text}: no matching entries in group file"
            )
        gid = int(known[2]) if known is not None else int(group_text)
    if security.group is not None:
        gid = security.group
    if security.run_as_non_root and uid == 0:
        raise ConfigFailure("container has runAsNonRoot and image will run as root")
    member_of = [int(r[2]) for r in group if row is not None and row[0] in r[3].split(",")]
    groups = tuple(dict.fromkeys((*member_of, *security.supplemental_groups)))
    return Identity(uid, gid, groups)
