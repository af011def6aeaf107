"""Takes the deliveries of one consumer out of a nats-py connection in bulk.

nats-py makes an object, a parsed header and a queue entry of each message, which costs three times
what its bytes cost. A tap stands between the socket and nats-py: it cuts out the deliveries, and
gives every other line to nats-py unchanged. So login, TLS, pings, errors and statuses stay its own.

It needs attributes of nats-py that are not public (all in `_transport_between_lines`). Where they
are missing, or the connection is a websocket, there is no tap, and messages come the usual way.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nats.aio.client import Client

from sahool_dlq.jetstream.acks import ACKS

__all__ = ["RawDelivery", "Tap", "tapped"]

RawDelivery = tuple[bytes, bytes, bytes]
"""Subject, reply and data of a delivered message."""

_BUFFER_BYTES = 1 << 20
_LEAST_ROOM_BYTES = 1 << 16
_ACKS = ACKS.encode()


class Tap(asyncio.BufferedProtocol):
    """The deliveries of `consumer` since the last `take`; the rest goes to the protocol `behind`.

    `on_arrival` is called after each read from the socket, and when the connection is lost.
    """

    def __init__(
        self, behind: asyncio.Protocol, consumer: str, on_arrival: Callable[[], object]
    ) -> None:
        self._behind = behind
        self._consumer = f".{consumer}.".encode()
        self._on_arrival = on_arrival
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # of the bytes that are not cut yet
        self._deliveries: list[RawDelivery] = []
        self.is_lost = False

    def __len__(self) -> int:
        return len(self._deliveries)

    def take(self) -> list[RawDelivery]:
        """The deliveries, in their order."""
        taken, self._deliveries = self._deliveries, []
        return taken

    def rest(self) -> bytes:
        """The bytes of a line that has not arrived completely."""
        return bytes(self._view[self._start : self._end])

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's signature)
        """Where the next bytes go."""
        if len(self._buffer) - self._end < _LEAST_ROOM_BYTES:
            rest = self.rest()
            if len(rest) > len(self._buffer) // 2:  # a message that is larger than the buffer
                self._buffer = bytearray(2 * len(self._buffer))
                self._view = memoryview(self._buffer)
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Cut what has arrived."""
        self._end += nbytes
        buffer, view, at, end = self._buffer, self._view, self._start, self._end
        while (stop := buffer.find(b"\r\n", at, end)) >= 0:
            line = bytes(view[at:stop])
            # MSG subject sid [reply] size; HMSG subject sid [reply] size-of-headers size
            parts = line.split(b" ")
            if parts[0] == b"HMSG":
                first, after = stop + 2 + int(parts[-2]), stop + 4 + int(parts[-1])
            elif parts[0] == b"MSG":
                first, after = stop + 2, stop + 4 + int(parts[-1])
            else:
                first = after = stop + 2
            if after > end:
                break
            if first < after and parts[3].startswith(_ACKS) and self._consumer in parts[3]:
                self._deliveries.append((parts[1], parts[3], bytes(view[first : after - 2])))
            else:
                self._behind.data_received(bytes(view[at:after]))
            at = after
        self._start, self._end = (0, 0) if at == end else (at, end)
        self._on_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell both sides."""
        self.is_lost = True
        self._behind.connection_lost(exc)
        self._on_arrival()

    def eof_received(self) -> bool | None:
        """Tell both sides."""
        self.is_lost = True
        self._on_arrival()
        return self._behind.eof_received()

    def pause_writing(self) -> None:
        """Let nats-py wait."""
        self._behind.pause_writing()

    def resume_writing(self) -> None:
        """Let nats-py go on."""
        self._behind.resume_writing()


@contextmanager
def tapped(client: Client, consumer: str, on_arrival: Callable[[], object]) -> Iterator[Tap | None]:
    """A tap on the connection; None where there can be none."""
    transport = _transport_between_lines(client)
    if transport is None:
        yield None
        return
    behind = transport.get_protocol()
    assert isinstance(behind, asyncio.Protocol)  # looked at below
    tap = Tap(behind, consumer, on_arrival)
    transport.set_protocol(tap)
    try:
        yield tap
    finally:
        if transport.get_protocol() is tap and not tap.is_lost:
            transport.set_protocol(behind)
            if rest := tap.rest():
                behind.data_received(rest)


def _transport_between_lines(client: Client) -> asyncio.Transport | None:
    """The connection's transport, if nats-py has read all that came, up to the end of a line."""
    inside: Any = client
    try:
        streams, parser = inside._transport, inside._ps  # noqa: SLF001  (see above)
        unread = streams._io_reader._buffer  # noqa: SLF001
        transport = streams._io_writer.transport  # noqa: SLF001
        is_between = not unread and not parser.buf
    except AttributeError:
        return None
    is_usual = isinstance(transport, asyncio.Transport) and isinstance(
        transport.get_protocol(), asyncio.Protocol
    )
    return transport if is_between and is_usual else None
