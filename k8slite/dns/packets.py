"""Questions and answers as bytes. Pure, but for dnspython, which reads and writes them.

dnspython takes some 60 ms of processor time to import: only what serves names imports this module.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import attrs
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from k8slite.dns.zone import Answer, Record

__all__ = ["Question", "append", "ask", "fails", "parse", "refuses", "respond", "shows_failure"]

HEADER_BYTES: Final = 12
UDP_BYTES: Final = 512
UDP_BYTES_MAX: Final = 1232
"""What passes everywhere in one piece."""
TCP_BYTES_MAX: Final = 65535
RESPONSE_BIT: Final = 0x80


@attrs.frozen
class Question:
    """What was asked. `name` in lower case, without the last dot. `bytes_max` of the answer."""

    message: dns.message.QueryMessage
    name: str
    type: str
    bytes_max: int


def parse(data: bytes, *, udp: bool) -> Question | bytes | None:
    """The question of a packet; bytes: the answer to one that we do not take; None: say nothing,
    for it is no question at all."""
    if len(data) < HEADER_BYTES or data[2] & RESPONSE_BIT:
        return None
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        # FORMERR, with nothing but the header
        return data[:2] + bytes((0x80 | data[2] & 0x79, dns.rcode.FORMERR)) + bytes(8)
    if message.opcode() != dns.opcode.QUERY or not isinstance(message, dns.message.QueryMessage):
        return refuses(message, dns.rcode.NOTIMP)
    if len(message.question) != 1:
        return refuses(message, dns.rcode.FORMERR)
    question = message.question[0]
    if message.edns > 0:
        return refuses(message, dns.rcode.BADVERS)
    kind = question.rdtype
    is_transfer = dns.rdatatype.is_metatype(kind) and kind != dns.rdatatype.ANY
    if question.rdclass != dns.rdataclass.IN or is_transfer:
        return refuses(message, dns.rcode.REFUSED)
    bytes_max = TCP_BYTES_MAX
    if udp:
        offered = message.payload if message.edns >= 0 else UDP_BYTES
        bytes_max = min(max(offered, UDP_BYTES), UDP_BYTES_MAX)
    name = question.name.to_text(omit_final_dot=True).lower()
    return Question(message, name, dns.rdatatype.to_text(question.rdtype), bytes_max)


def refuses(message: dns.message.Message, code: dns.rcode.Rcode) -> bytes:
    """An answer that holds an error alone."""
    response = dns.message.make_response(message, recursion_available=True)
    response.set_rcode(code)
    return response.to_wire()


def fails(question: Question) -> bytes:
    """SERVFAIL: nobody could be asked."""
    return refuses(question.message, dns.rcode.SERVFAIL)


def respond(
    question: Question,
    answer: Answer,
    authority: Record,
    ttl: int,
    rng: random.Random,
    outside: bytes | None = None,
) -> bytes:
    """An answer of the zone. Addresses come in any order, so that clients that take the first
    spread. `outside` is what others said about the target of a CNAME; what does not fit over UDP
    is cut off and marked, so that the client asks again over TCP."""
    message = question.message
    response = dns.message.make_response(message, recursion_available=True, our_payload=1232)
    response.flags |= dns.flags.AA
    if not answer.exists:
        response.set_rcode(dns.rcode.NXDOMAIN)
    response.answer = _rrsets(answer.records, ttl, rng)
    response.additional = _rrsets(answer.additional, ttl, rng)
    if outside is not None:
        append(response, outside)
    elif not answer.records or all(r.type == "CNAME" for r in answer.records):
        response.authority = _rrsets([authority], ttl, rng)
    return response.to_wire(max_size=question.bytes_max, prefer_truncation=True)


def append(response: dns.message.Message, outside: bytes) -> None:
    """Add the answers of others, about the end of our chain."""
    try:
        found = dns.message.from_wire(outside, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        response.set_rcode(dns.rcode.SERVFAIL)
        return
    response.answer += found.answer
    response.set_rcode(found.rcode())


def ask(name: str, type_: str) -> bytes:
    """A question of our own."""
    return dns.message.make_query(name + ".", type_, use_edns=0, payload=UDP_BYTES_MAX).to_wire()


def shows_failure(answer: bytes) -> bool:
    """Whether a name server's answer says that it could not say: SERVFAIL, REFUSED and the like."""
    return answer[3] & 0x0F not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


def _rrsets(records: Sequence[Record], ttl: int, rng: random.Random) -> list[dns.rrset.RRset]:
    sets: dict[tuple[str, str], list[str]] = {}
    for record in records:
        sets.setdefault((record.name, record.type), []).append(record.data)
    found = []
    for (name, type_), data in sets.items():
        if len(data) > 1:
            data = rng.sample(data, len(data))
        found.append(dns.rrset.from_text_list(name + ".", ttl, "IN", type_, data))
    return found
