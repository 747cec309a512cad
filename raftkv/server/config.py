"""What a member is told at its start. Owns nothing; picklable but for the TLS contexts."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from raftkv.host import Address, Tls

__all__ = ["ServerConfig"]


DEFAULT_CLIENT_ADDRESS = Address("127.0.0.1", 2379)
DEFAULT_PEER_ADDRESS = Address("127.0.0.1", 2380)


def _above_zero(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value <= 0:
        raise ValueError(f"the member {attribute.name} must be above 0, not {value}")


@attrs.frozen(kw_only=True)
class ServerConfig:
    """One member. Durations are in seconds, or in ticks of `tick_seconds`.

    name: for people; logs and status show it.
    id: this member's number, above 0, unique in the cluster, never used again after a wipe.
    data_dir: where the log and snapshots live, as `Host.disk` understands it.
    client_address, peer_address: where to listen; port 0 asks for a free one. peer_address None:
        where the cluster knows this member to be.
    peers: id -> peer address of every founding member, this one included; empty: a single member
        that listens for no peers. Members that came later are known from the log.
    join: this member was added to a running cluster (`member_add`): it begins with nothing and
        waits for the leader; `peers` may help it to find the others.
    advertise_peer_address: where the others reach this member, if neither as in `peers` nor where
        it listens.
    cluster: a name that keeps members of different clusters apart.
    tls, peer_tls: mutual TLS for clients and between members; None: plain streams.
    advertise_client_address: where clients reach this member, if not where it listens.
    snapshot_entries: log entries between two snapshots; `snapshot_bytes`: log bytes likewise.
    catch_up_entries: entries kept behind a snapshot, so that a slow follower needs none.
    progress_seconds: the pause after which a quiet watch that asked for it hears of progress.
    check_seconds: how often members compare their states (`comparing`).
    campaign_at_start: stand for election at once: quick start of a founding member.
    fsync: False gives up durability for speed; only tests of other things do that.
    etcd_address: where this member also serves etcd's API, by a front that whoever runs the member
        opens (`raftkv.etcd`); `advertise_etcd_address`: where clients reach that, if elsewhere.
    memory_bytes: tells the process' memory for the status, where the host knows it.
    """

    id: int = attrs.field(default=1, validator=_above_zero)
    name: str = ""
    data_dir: str = "raftkv-data"
    client_address: Address = DEFAULT_CLIENT_ADDRESS
    peer_address: Address | None = DEFAULT_PEER_ADDRESS
    advertise_client_address: Address | None = None
    advertise_peer_address: Address | None = None
    etcd_address: Address | None = None
    advertise_etcd_address: Address | None = None
    join: bool = False
    peers: dict[int, Address] = attrs.field(factory=dict)
    cluster: str = "raftkv"
    tls: Tls | None = None
    peer_tls: Tls | None = None
    tick_seconds: float = 0.1
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    snapshot_entries: int = 10_000
    snapshot_bytes: int = 64 * 1024 * 1024
    catch_up_entries: int = 5_000
    progress_seconds: float = 10.0
    check_seconds: float = 60.0
    campaign_at_start: bool = False
    fsync: bool = True
    quota_bytes: int = 2 * 1024 * 1024 * 1024
    memory_bytes: Callable[[], int] | None = None

    @peers.validator
    def _check_peers(self, attribute: object, value: dict[int, Address]) -> None:
        if value and self.id not in value:
            raise ValueError(f"the list of peers lacks this member (id {self.id})")

    @property
    def display_name(self) -> str:
        return self.name or f"member-{self.id}"

    @property
    def voters(self) -> tuple[int, ...]:
        """The founding ones; none for a member that joins."""
        return () if self.join else tuple(sorted(self.peers)) or (self.id,)

    @property
    def election_seconds(self) -> float:
        return self.election_ticks * self.tick_seconds
