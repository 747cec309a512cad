"""Files of bbolt, the B+tree store under etcd: written as a whole, and read. Pure.

The format is bbolt's version 2, for pages of 4 KiB as written here and of any size as read. A file
is a sequence of pages; page 0 and 1 hold the two copies of the root's place, of which the one with
the higher transaction counts. A bucket is a tree of branch and leaf pages; the buckets themselves
are the entries of the root's tree. Pages whose entries take more than a page go on over the next.
All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from raftkv.errors import SnapshotDamaged

__all__ = ["is_bolt", "read_bolt", "write_bolt"]

Pair = tuple[bytes, bytes]

PAGE_BYTES: Final = 4096
PAGE: Final = struct.Struct("<QHHI")  # id, kind, entries, pages that follow as part of it
BRANCH, LEAF, META, FREE = 1, 2, 4, 16
LEAF_ENTRY: Final = struct.Struct("<IIII")  # is a bucket, place of the key, sizes of key and value
BRANCH_ENTRY: Final = struct.Struct("<IIQ")  # place of the key, its size, page
BUCKET: Final = struct.Struct("<QQ")  # root page (0: the page is here), sequence
ROOT: Final = struct.Struct("<IIIIQQQQQ")
"""magic, version, bytes of a page, flags, root bucket's two, free list, pages, transaction."""
MAGIC: Final = 0xED0CDAED
VERSION: Final = 2
CHECKSUM: Final = struct.Struct("<Q")
FIRST_DATA_PAGE: Final = 3
ENTRIES_MAX: Final = 0xFFFE


def _fnv(data: bytes) -> int:
    """64-bit FNV-1a."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found


# --- writing ------------------------------------------------------------------------------------


def write_bolt(buckets: Mapping[bytes, Sequence[Pair]]) -> bytes:
    """A file with these buckets; the pairs of each are in order of key."""
    writer = _Writer()
    roots = []
    for name in sorted(buckets):
        roots.append((name, BUCKET.pack(writer.tree(buckets[name]), 0)))
    return writer.file(writer.tree(roots, buckets=True))


class _Writer:
    def __init__(self) -> None:
        self._pages: list[bytes] = []
        self._next = FIRST_DATA_PAGE

    def tree(self, pairs: Sequence[Pair], buckets: bool = False) -> int:
        """Write leaves, and branches above them until there's one; its page."""
        flag = int(buckets)
        level = [
            (part[0][0] if part else b"", self._leaf(part, flag))
            for part in _parts(pairs, LEAF_ENTRY.size)
        ]
        while len(level) > 1:
            keys = [(key, CHECKSUM.pack(page)) for key, page in level]
            level = [(part[0][0], self._branch(part)) for part in _parts(keys, BRANCH_ENTRY.size)]
        return level[0][1]

    def _leaf(self, pairs: Sequence[Pair], flag: int) -> int:
        place, heads = LEAF_ENTRY.size * len(pairs), []
        for key, value in pairs:
            heads.append(LEAF_ENTRY.pack(flag, place, len(key), len(value)))
            place += len(key) + len(value) - LEAF_ENTRY.size
        return self._page(LEAF, heads, [each for pair in pairs for each in pair])

    def _branch(self, keys: Sequence[Pair]) -> int:
        place, heads = BRANCH_ENTRY.size * len(keys), []
        for key, page in keys:
            heads.append(BRANCH_ENTRY.pack(place, len(key), *CHECKSUM.unpack(page)))
            place += len(key) - BRANCH_ENTRY.size
        return self._page(BRANCH, heads, [key for key, _ in keys])

    def _page(self, kind: int, heads: list[bytes], bodies: list[bytes]) -> int:
        page = self._next
        content = b"".join(heads) + b"".join(bodies)
        size = PAGE.size + len(content)
        more = (size - 1) // PAGE_BYTES
        filling = bytes((more + 1) * PAGE_BYTES - size)
        self._pages.append(PAGE.pack(page, kind, len(heads), more) + content + filling)
        self._next += more + 1
        return page

    def file(self, root: int) -> bytes:
        metas = []
        for number in (0, 1):
            meta = ROOT.pack(MAGIC, VERSION, PAGE_BYTES, 0, root, 0, 2, self._next, number)
            page = PAGE.pack(number, META, 0, 0) + meta + CHECKSUM.pack(_fnv(meta))
            metas.append(page.ljust(PAGE_BYTES, b"\0"))
        free = PAGE.pack(2, FREE, 0, 0).ljust(PAGE_BYTES, b"\0")
        return b"".join([*metas, free, *self._pages])


def _parts(pairs: Sequence[Pair], head: int) -> Iterator[Sequence[Pair]]:
    """The pairs page by page; at least one page, and each holds a pair however large."""
    start, size = 0, PAGE.size
    for number, (key, value) in enumerate(pairs):
        size += head + len(key) + len(value)
        if number > start and (size > PAGE_BYTES or number - start >= ENTRIES_MAX):
            yield pairs[start:number]
            start, size = number, PAGE.size + head + len(key) + len(value)
    yield pairs[start:]


# --- reading ------------------------------------------------------------------------------------


def is_bolt(data: bytes) -> bool:
    start = data[PAGE.size : PAGE.size + 4]
    return start == struct.pack("<I", MAGIC)


def read_bolt(data: bytes) -> dict[bytes, list[Pair]]:
    """The pairs of each bucket, in order of key. Raises SnapshotDamaged."""
    try:
        return _Reader(data).buckets()
    except (struct.error, IndexError, RecursionError) as error:
        raise SnapshotDamaged(f"the database file is damaged: {error}") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._page_bytes, self._root = self._newest_root()

    def _newest_root(self) -> tuple[int, int]:
        found = []
        page_bytes = ROOT.unpack_from(self._data, PAGE.size)[2] or PAGE_BYTES
        for page in (0, 1):
            start = page * page_bytes + PAGE.size
            meta = self._data[start : start + ROOT.size]
            magic, version, size, _, root, _, _, _, transaction = ROOT.unpack(meta)
            (checksum,) = CHECKSUM.unpack_from(self._data, start + ROOT.size)
            if magic == MAGIC and version == VERSION and checksum == _fnv(meta):
                found.append((transaction, size, root))
        if not found:
            raise SnapshotDamaged("the database file is damaged: no copy of its root is whole")
        return max(found)[1:]

    def buckets(self) -> dict[bytes, list[Pair]]:
        return {
            name: list(self._bucket(value))
            for flag, name, value in self._entries(self._root)
            if flag & 1
        }

    def _bucket(self, value: bytes) -> Iterator[Pair]:
        root, _ = BUCKET.unpack_from(value)
        if root:
            entries = self._entries(root)
        else:
            entries = self._page_entries(value[BUCKET.size :], 0)
        for flag, key, found in entries:
            if not flag & 1:
                yield key, found

    def _entries(self, page: int, depth: int = 0) -> Iterator[tuple[int, bytes, bytes]]:
        start = page * self._page_bytes
        _, _, _, more = PAGE.unpack_from(self._data, start)
        content = self._data[start : start + (more + 1) * self._page_bytes]
        return self._page_entries(content, depth)

    def _page_entries(self, page: bytes, depth: int) -> Iterator[tuple[int, bytes, bytes]]:
        _, kind, count, _ = PAGE.unpack_from(page)
        if kind not in (LEAF, BRANCH) or depth > 64:
            raise SnapshotDamaged("the database file is damaged: a page is none of a tree")
        for number in range(count):
            if kind == BRANCH:
                at = PAGE.size + number * BRANCH_ENTRY.size
                yield from self._entries(BRANCH_ENTRY.unpack_from(page, at)[2], depth + 1)
                continue
            at = PAGE.size + number * LEAF_ENTRY.size
            flag, place, key_size, value_size = LEAF_ENTRY.unpack_from(page, at)
            key_end = at + place + key_size
            if key_end + value_size > len(page):
                raise SnapshotDamaged("the database file is damaged: an entry ends behind its page")
            yield flag, page[at + place : key_end], page[key_end : key_end + value_size]
