"""A tap cuts the deliveries out of the bytes, and nothing else, wherever the reads end."""

import asyncio
import random
from typing import cast

import pytest
from nats.aio.client import Client

from sahool_dlq.jetstream.tap import RawDelivery, Tap, tapped

SIZES = (0, 1, 2, 50, 3_000, 70_000)


class Behind(asyncio.Protocol):
    """What nats-py would read."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.told: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.lines.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(f"lost: {exc}")

    def eof_received(self) -> bool | None:
        self.told.append("eof")
        return True

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


def message(subject: bytes, reply: bytes, head: bytes, body: bytes) -> bytes:
    place = b" ".join(part for part in (subject, b"1", reply) if part)
    if head:
        return b"HMSG %s %d %d\r\n%s%s\r\n" % (place, len(head), len(head + body), head, body)
    return b"MSG %s %d\r\n%s\r\n" % (place, len(body), body)


def traffic(rng: random.Random, count: int) -> tuple[list[RawDelivery], list[bytes], bytes]:
    """Deliveries of consumer C1, the lines of others, and the bytes of both in turn."""
    ours: list[RawDelivery] = []
    others: list[bytes] = []
    sent: list[bytes] = []
    for number in range(count):
        body = rng.choice((b"\r\nMSG x 1 3\r\n", b"a", rng.randbytes(5))) * rng.choice(SIZES)
        head = rng.choice((b"", b"NATS/1.0\r\nStatus: 404\r\n\r\n", b"NATS/1.0\r\nbad\r\n\r\n"))
        domain = rng.choice((b"", b"hub.hash."))
        reply = b"$JS.ACK.%sS.C1.1.%d.%d.17.%d" % (domain, number, number, count - number)
        lines = (
            b"PING\r\n",
            b"+OK\r\n",
            b"-ERR 'Slow Consumer'\r\n",
            message(b"_INBOX.x.1", b"", b"NATS/1.0 404 No Messages\r\n\r\n", b""),
            message(b"other", reply.replace(b"C1", b"C12"), head, body),
            message(b"other", b"_INBOX.y", head, body),
        )
        if rng.random() < 0.5:
            ours.append((b"s.%d" % number, reply, body))
            sent.append(message(b"s.%d" % number, reply, head, body))
        else:
            others.append(rng.choice(lines))
            sent.append(others[-1])
    return ours, others, b"".join(sent)


def feed(tap: Tap, data: bytes, rng: random.Random) -> None:
    """In reads of any size, as a socket gives them."""
    while data:
        room = tap.get_buffer(-1)
        size = min(len(room), rng.choice((1, 2, 7, 4_000, 1 << 20)), len(data))
        room[:size] = data[:size]
        tap.buffer_updated(size)
        data = data[size:]


@pytest.mark.parametrize("seed", range(8))
def test_each_line_is_cut_out_or_passed_on_whole(seed: int) -> None:
    rng, behind = random.Random(seed), Behind()
    calls: list[None] = []
    tap = Tap(behind, "C1", lambda: calls.append(None))
    ours, others, sent = traffic(rng, 120)
    feed(tap, sent, rng)
    assert tap.take() == ours
    assert b"".join(behind.lines) == b"".join(others)
    assert (len(tap), tap.rest()) == (0, b"")
    assert calls


def test_a_message_may_be_larger_than_the_buffer() -> None:
    rng, behind = random.Random(1), Behind()
    tap = Tap(behind, "C1", lambda: None)
    body = rng.randbytes(5_000_000)
    reply = b"$JS.ACK.S.C1.1.1.1.17.0"
    feed(tap, message(b"s", reply, b"", body) * 2 + b"PI", rng)
    assert tap.take() == [(b"s", reply, body)] * 2
    assert (behind.lines, tap.rest()) == ([], b"PI")


def test_what_happens_to_the_connection_is_passed_on() -> None:
    behind, calls = Behind(), list[None]()
    tap = Tap(behind, "C1", lambda: calls.append(None))
    tap.pause_writing()
    tap.resume_writing()
    assert not tap.is_lost
    assert tap.eof_received()
    tap.connection_lost(OSError("gone"))
    assert tap.is_lost
    assert behind.told == ["pause", "resume", "eof", "lost: gone"]
    assert len(calls) == 2


def test_another_client_library_has_no_tap() -> None:
    with tapped(cast("Client", object()), "C1", lambda: None) as tap:
        assert tap is None
