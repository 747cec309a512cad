"""The kernel's answers as they come through pyroute2, and that a request leaves nothing behind."""

from __future__ import annotations

import errno
import gc
import ipaddress
import os
import sys
from collections.abc import Iterator

import pytest

from k8slite.network import namespaces
from k8slite.network.addresses import namespace_name
from k8slite.network.netlink import Rtnl

pytestmark = pytest.mark.root
CLUSTER = "netlinktest"
MAC = "0a:58:0a:00:00:01"


def make_namespace(part: str) -> Iterator[str]:
    name = namespace_name(CLUSTER, part)
    namespaces.delete(name)
    yield namespaces.create(name)
    namespaces.delete(name)


@pytest.fixture
def here() -> Iterator[str]:
    yield from make_namespace("here")


@pytest.fixture
def there() -> Iterator[str]:
    yield from make_namespace("there")


def test_links_addresses_and_routes(here: str, there: str) -> None:
    with Rtnl(here) as near, Rtnl(there) as far:
        near.add_bridge("bridge", MAC)
        near.add_veth("near", "far", there, bridge="bridge")
        assert sorted(near.links()) == ["bridge", "lo", "near"]
        assert sorted(far.links()) == ["far", "lo"]
        assert near.index("near") != near.index("bridge")
        far.set_up("far")
        near.add_address("bridge", "10.1.2.3/24")
        near.add_address("bridge", "10.1.2.3/24")
        assert near.addresses() == [ipaddress.IPv4Interface("10.1.2.3/24")]
        far.add_address("far", "10.9.9.9/32")
        far.set_route("10.1.2.3/32", link="far")
        for _ in range(2):
            far.set_route("0.0.0.0/0", gateway="10.1.2.3")
        assert near.delete_link("near")
        assert not near.delete_link("near")
        assert not near.has_link("near")
        assert not far.has_link("far")


def test_errors_have_the_kernels_number_and_what_was_tried(here: str) -> None:
    with Rtnl(here) as rtnl:
        rtnl.add_bridge("bridge", MAC)
        with pytest.raises(FileExistsError, match="can't make the bridge bridge"):
            rtnl.add_bridge("bridge", MAC)
        with pytest.raises(OSError, match="can't find the interface nothing") as caught:
            rtnl.add_address("nothing", "10.1.2.3/24")
        assert caught.value.errno == errno.ENODEV
        with pytest.raises(OSError, match=r"can't set the route to 10\.5\.0\.0/16") as caught:
            rtnl.set_route("10.5.0.0/16", gateway="10.7.7.7")
        assert caught.value.errno == errno.ENETUNREACH
        with pytest.raises(FileNotFoundError):
            rtnl.add_veth("near", "far", "/run/netns/k8slite.nobody.there")
        assert sorted(rtnl.links()) == ["bridge", "lo"]
    with pytest.raises(FileNotFoundError):
        Rtnl("/run/netns/k8slite.nobody.there")


async def test_a_trio_program_keeps_nothing_of_it(here: str) -> None:
    """No descriptor, no thread, no loop's hook: the library's own loop is gone after each use."""

    def state() -> tuple[object, ...]:
        gc.collect()
        descriptors = sorted(os.listdir("/proc/self/fd"))
        threads = sorted(os.listdir("/proc/self/task"))
        return descriptors, threads, os.readlink(namespaces.OWN), sys.get_asyncgen_hooks()

    before = state()
    for _ in range(3):
        with Rtnl(here) as rtnl:
            assert rtnl.links() == ["lo"]
            with pytest.raises(OSError, match="nothing"):
                rtnl.index("nothing")
    assert state() == before
