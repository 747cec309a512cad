"""The parts of the front that are functions: gRPC's framing, etcd's orders and texts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv import errors
from raftkv.cli.main import build_parser
from raftkv.cli.member import config_of
from raftkv.cli.output import UsageError
from raftkv.etcd.outcomes import rpc_error
from raftkv.etcd.ranges import arranged, needs_all
from raftkv.etcd.rpc import (
    MESSAGE_BYTES_MAX,
    RpcError,
    Status,
    frame,
    outcome_headers,
    split_messages,
    timeout_of,
)
from raftkv.etcd.schema import MESSAGES
from raftkv.etcd.translate import range_operation, txn_command


@given(st.lists(st.binary(max_size=40)), st.integers(1, 7))
def test_messages_come_out_however_the_bytes_are_cut(messages: list[bytes], size: int) -> None:
    data = b"".join(map(frame, messages))
    buffer, found = bytearray(), []
    for start in range(0, len(data), size):
        buffer += data[start : start + size]
        found += split_messages(buffer)
    assert found == messages
    assert not buffer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x01\0\0\0\x01", Status.UNIMPLEMENTED),
        (b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"), Status.RESOURCE_EXHAUSTED),
    ],
)
def test_messages_that_are_refused(head: bytes, status: Status) -> None:
    with pytest.raises(RpcError) as refused:
        split_messages(bytearray(head))
    assert refused.value.status is status


def test_timeouts() -> None:
    assert timeout_of(b"5S") == 5
    assert timeout_of(b"250m") == 0.25
    assert timeout_of(b"1H") == 3600
    for wrong in (b"", b"5", b"S", b"-1S", b"1x", b"123456789S"):
        with pytest.raises(RpcError):
            timeout_of(wrong)


def test_outcomes_are_percent_encoded() -> None:
    assert outcome_headers(Status.OK, "") == [(b"grpc-status", b"0")]
    status, message = outcome_headers(Status.UNAVAILABLE, "100% off: ä\n")
    assert status == (b"grpc-status", b"14")
    assert message == (b"grpc-message", b"100%25 off: %C3%A4%0A")


@pytest.mark.parametrize("kind", sorted(errors.BY_CODE))
def test_every_error_has_a_status(kind: str) -> None:
    error = errors.from_wire(kind, "", ())
    found = rpc_error(error)
    assert found.status is not Status.OK
    assert str(found)


def test_texts_that_clients_compare_have_nothing_added() -> None:
    error = errors.NoSpace(f"{errors.NoSpace.text}: the quota is 7 bytes")
    assert str(rpc_error(error)) == "etcdserver: mvcc: database space exceeded"
    assert rpc_error(errors.UnknownOutcome()).status is Status.UNAVAILABLE


PAIRS = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b", b"c", b"d", b"e"]),
        st.sampled_from([b"", b"x", b"y"]),
        st.integers(1, 6),
        st.integers(1, 6),
        st.integers(1, 3),
        st.just(0),
    ),
    max_size=5,
    unique_by=lambda pair: pair[0],
).map(sorted)


@given(
    PAIRS,
    st.fixed_dictionaries(
        {
            "limit": st.integers(0, 4),
            "sort_order": st.integers(0, 2),
            "sort_target": st.integers(0, 4),
            "min_mod_revision": st.integers(0, 6),
            "max_create_revision": st.integers(0, 6),
        }
    ),
)
def test_ranges_are_filtered_sorted_and_cut(pairs: list[Any], fields: dict[str, int]) -> None:
    request = MESSAGES["RangeRequest"](key=b"a", range_end=b"z", **fields)
    found, more = arranged(request, pairs)
    created_max = request.max_create_revision or 99
    wanted = [p for p in pairs if p[3] >= request.min_mod_revision and p[2] <= created_max]
    assert more == (0 < request.limit < len(wanted))
    assert len(found) == min(len(wanted), request.limit or 99)
    assert set(found) <= set(wanted)
    place = (0, 4, 2, 3, 1)[request.sort_target]
    order = [pair[place] for pair in found]
    assert order == sorted(order, reverse=request.sort_order == 2)
    if found and more:
        worst, rest = found[-1][place], [p[place] for p in wanted if p not in found]
        assert all(each <= worst if request.sort_order == 2 else each >= worst for each in rest)
    if needs_all(request):
        assert range_operation(request)[3] == 0


def test_keys_that_are_sorted_by_value_are_read_with_it() -> None:
    request = MESSAGES["RangeRequest"](key=b"a", keys_only=True, sort_target=4, sort_order=1)
    assert range_operation(request)[5] is False


def test_txn_without_an_operation_in_it() -> None:
    request = MESSAGES["TxnRequest"](success=[MESSAGES["RequestOp"]()])
    with pytest.raises(errors.KeyNotFound):
        txn_command(request)


def test_a_member_without_the_front_does_not_load_it() -> None:
    program = (
        "import sys, raftkv.cli.main, raftkv.cli.member\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('h2', 'google', 'grpc')"
        " or m.startswith('raftkv.etcd')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_port_that_the_others_could_not_know_is_refused() -> None:
    arguments = ["serve", "--data-dir", "d", "--etcd-listen", "127.0.0.1:0"]
    with pytest.raises(UsageError, match="--etcd-listen: the other members have to know"):
        config_of(build_parser().parse_args(arguments))


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    arguments = ["serve", "--data-dir", "d", "--etcd-listen", "127.0.0.1:2389"]
    with pytest.raises(UsageError, match=r"pip install 'k8slite\[etcd\]'"):
        config_of(build_parser().parse_args(arguments))
