"""TCP connections between simulated hosts, as trio streams.

Owns the bytes in flight, the window that holds a sender back while its reader is slow, and how a
connection ends: end of file, reset, or silence. Segments arrive whole and in order; those that meet
a blocked link or a dark machine are sent again with doubling pauses, as TCP does, until
`GIVE_UP_AFTER`. The kernel's part (delivery, retransmission, resets) goes on while the process is
paused, and for what a killed process had sent already; a machine without power does nothing.
"""

from __future__ import annotations

import collections
import random

import trio

from netsim.fabric import Fabric
from netsim.life import Life
from netsim.link import RETRANSMIT_MIN, Link

__all__ = ["SimStream", "connect_streams"]

GIVE_UP_AFTER = 924.0
"""Seconds without progress after which TCP on Linux gives a connection up."""
RETRANSMIT_MAX = 120.0
RECEIVE_BYTES_MAX = 65536


class _Pipe:
    """One direction of a connection: what was sent and is not yet read."""

    __slots__ = (
        "arrived",
        "eof_arrived",
        "eof_sent",
        "fabric",
        "label",
        "last_at",
        "link",
        "pause",
        "queue",
        "reader",
        "scheduled",
        "stalled_at",
        "used",
        "window",
        "writer",
    )

    def __init__(self, fabric: Fabric, link: Link, label: str, window: int) -> None:
        self.fabric = fabric
        self.link = link
        self.label = label
        self.window = window
        self.used = 0
        self.queue: collections.deque[tuple[float, bytes]] = collections.deque()
        self.arrived: collections.deque[bytes] = collections.deque()
        self.eof_sent = self.eof_arrived = False
        self.last_at = 0.0
        self.scheduled = False
        self.pause = 0.0
        self.stalled_at = 0.0
        self.reader: trio.lowlevel.Task | None = None
        self.writer: trio.lowlevel.Task | None = None

    def send(self, data: bytes) -> float:
        """Put a segment on the wire (no bytes: end of file); when it should be there."""
        now = self.fabric.now()
        self.last_at = at = max(self.last_at, now + self.link.transit(now, len(data)))
        self.used += len(data)
        self.queue.append((at, data))
        return at

    def take(self, bytes_max: int) -> bytes:
        """Bytes that arrived, at most `bytes_max` of them; the window opens by as many."""
        arrived = self.arrived
        data = arrived.popleft()
        if len(data) > bytes_max:
            arrived.appendleft(data[bytes_max:])
            data = data[:bytes_max]
        elif arrived and len(data) + len(arrived[0]) <= bytes_max:
            pieces = [data]
            room = bytes_max - len(data)
            while arrived and len(arrived[0]) <= room:
                room -= len(arrived[0])
                pieces.append(arrived.popleft())
            data = b"".join(pieces)
        self.used -= len(data)
        self.wake_writer()
        return data

    def wake_reader(self) -> None:
        task, self.reader = self.reader, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def wake_writer(self) -> None:
        task, self.writer = self.writer, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def clear(self) -> None:
        """Forget what is in flight."""
        self.used -= sum(len(data) for _, data in self.queue)
        self.queue.clear()


class SimStream(trio.abc.HalfCloseableStream):
    """One end of a simulated TCP connection."""

    def __init__(self, fabric: Fabric, life: Life, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._fabric = fabric
        self._life = life
        self._in = incoming
        self._out = outgoing
        self._peer: SimStream
        self._closed = False
        self._broken = ""
        self._sending = self._receiving = False
        life.streams[self] = None

    def __repr__(self) -> str:
        return f"<SimStream {self._out.label}>"

    # What a process may do

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._require_sendable()
            rest = memoryview(data)
            out = self._out
            while rest:
                room = out.window - out.used
                if room <= 0:
                    await self._wait_room()
                    self._require_sendable()
                    continue
                self._transmit(bytes(rest[:room]))
                rest = rest[room:]
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            while not self._broken and self._out.used >= self._out.window:
                await self._wait_room()
                if self._closed:
                    raise trio.ClosedResourceError("this stream was closed")
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._broken:
            raise trio.BrokenResourceError(self._broken)
        self._send_end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is None:
            max_bytes = RECEIVE_BYTES_MAX
        elif not isinstance(max_bytes, int):
            raise TypeError("max_bytes must be an integer or None")
        elif max_bytes < 1:
            raise ValueError("max_bytes must be positive")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        waited = False
        try:
            while True:
                pipe = self._in
                at_hand = pipe.arrived or pipe.eof_arrived or self._closed or self._broken
                if at_hand and waited:
                    return self._receive_nowait(max_bytes)
                waited = True
                if at_hand:
                    await trio.lowlevel.checkpoint()
                else:
                    pipe.reader = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._abort_reader)
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._life.alive and not self._broken:
                if self._in.arrived:
                    self._send_reset()
                else:
                    self._send_end()
            self._let_go()
        await trio.lowlevel.checkpoint()

    # What its kernel does

    def _receive_nowait(self, max_bytes: int) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._in.arrived:
            return self._in.take(max_bytes)
        if self._broken:
            raise trio.BrokenResourceError(self._broken)
        return b""

    def _require_sendable(self) -> None:
        if self._closed or self._out.eof_sent:
            raise trio.ClosedResourceError("this stream was closed for sending")
        if self._broken:
            raise trio.BrokenResourceError(self._broken)

    async def _wait_room(self) -> None:
        self._out.writer = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_writer)

    def _abort_reader(self, _: object) -> trio.lowlevel.Abort:
        self._in.reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _abort_writer(self, _: object) -> trio.lowlevel.Abort:
        self._out.writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _transmit(self, data: bytes) -> None:
        if not self._life.alive:
            return
        at = self._out.send(data)
        if not self._out.scheduled:
            self._out.scheduled = True
            self._fabric.timeline.at(at, self._deliver)

    def _send_end(self) -> None:
        if not self._out.eof_sent:
            self._out.eof_sent = True
            self._transmit(b"")

    def _deliver(self) -> None:
        """Bring what is due to the other end."""
        out, fabric, peer = self._out, self._fabric, self._peer
        out.scheduled = False
        if not out.queue:
            return
        if out.link.blocked or not peer._life.machine.powered:
            self._stall()
            return
        out.pause = 0.0
        if peer._closed or not peer._life.alive:
            out.clear()
            peer._send_reset()
            return
        if peer._broken:
            out.clear()
            return
        now = fabric.now()
        queue, pieces = out.queue, out.arrived
        while queue and queue[0][0] <= now:
            data = queue.popleft()[1]
            if data:
                pieces.append(data)
                fabric.note_data(out.label, data)
            else:
                out.eof_arrived = True
                fabric.note(f"{out.label} end")
        if queue:
            out.scheduled = True
            fabric.timeline.at(queue[0][0], self._deliver)
        out.wake_reader()

    def _stall(self) -> None:
        """The segment met a wall: try again later, for a time."""
        out, now = self._out, self._fabric.now()
        if not self._life.kernel_alive:
            out.clear()
            return
        if out.pause == 0.0:
            out.stalled_at = now
            out.pause = RETRANSMIT_MIN
        else:
            out.pause = min(out.pause * 2, RETRANSMIT_MAX)
        if now - out.stalled_at > GIVE_UP_AFTER:
            self._be_reset("connection timed out")
            return
        out.scheduled = True
        self._fabric.timeline.at(now + out.pause, self._deliver)

    def _send_reset(self) -> None:
        """Tell the other end that nobody is here. A reset is sent once; it may get lost."""
        out, fabric = self._out, self._fabric
        at = max(out.last_at, fabric.now() + out.link.transit(fabric.now(), 0))
        fabric.timeline.at(at, self._deliver_reset)

    def _deliver_reset(self) -> None:
        if not self._out.link.blocked and self._peer._life.machine.powered:
            self._peer._be_reset("connection reset by peer")

    def _be_reset(self, why: str) -> None:
        if self._closed or self._broken:
            return
        self._broken = why
        self._fabric.note(f"{self._in.label} reset")
        self._out.clear()
        self._in.wake_reader()
        self._out.wake_writer()

    def _let_go(self) -> None:
        """The process has done with this end: wake whoever waits on it, free what it held."""
        self._life.streams.pop(self, None)
        self._in.arrived.clear()
        self._in.wake_reader()
        self._out.wake_writer()

    # What the world does to it

    def end_with_process(self) -> None:
        """The process was killed: its kernel resets the connection after what was sent."""
        if not self._closed:
            self._closed = True
            self._send_reset()
            self._let_go()

    def end_with_machine(self, rng: random.Random) -> None:
        """The machine lost power: some of what was sent had left it, perhaps half a segment."""
        if not self._closed:
            self._closed = True
            self._cut_short(rng)
            self._let_go()

    def break_off(self, rng: random.Random) -> None:
        """Reset both ends now, with a part of what is in flight delivered."""
        for end in (self, self._peer):
            end._cut_short(rng)
            end._deliver_now()
        for end in (self, self._peer):
            end._be_reset("connection reset by peer")

    @property
    def hosts(self) -> tuple[str, str]:
        """Names of this end's host and of the other's."""
        return self._out.link.source, self._out.link.target

    def _cut_short(self, rng: random.Random) -> None:
        out = self._out
        if not out.queue:
            return
        segments = list(out.queue)
        out.clear()
        kept = rng.randrange(len(segments) + 1)
        for at, data in segments[:kept]:
            out.queue.append((at, data))
        if kept < len(segments):
            at, data = segments[kept]
            part = data[: rng.randrange(len(data) + 1)]
            if part:
                out.queue.append((at, part))
        out.used += sum(len(data) for _, data in out.queue)

    def _deliver_now(self) -> None:
        out = self._out
        if out.link.blocked or self._peer._closed:
            out.clear()
        while out.queue:
            data = out.queue.popleft()[1]
            if data:
                out.arrived.append(data)
                self._fabric.note_data(out.label, data)


def connect_streams(
    fabric: Fabric, client: Life, server: Life, window: int
) -> tuple[SimStream, SimStream]:
    """A new connection's two ends: (client's, server's)."""
    number = fabric.next_connection()
    source, target = client.machine.name, server.machine.name
    there = _Pipe(fabric, fabric.link(source, target), f"{source}>{target} c{number}", window)
    back = _Pipe(fabric, fabric.link(target, source), f"{target}>{source} c{number}", window)
    near = SimStream(fabric, client, incoming=back, outgoing=there)
    far = SimStream(fabric, server, incoming=there, outgoing=back)
    near._peer, far._peer = far, near
    return near, far
