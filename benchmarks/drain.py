"""The speed of the drain, compared with its upper bound and with peers: `make bench`.

All contestants store the same dead letters, read from one stream, in one table, on servers with
real fsync. After every run the stored content is checked, not only counted.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import nats
import psycopg
from nats.js.api import AckPolicy, ConsumerConfig

from letters import letters
from measure import Run, Stopwatch, console, interleaved, print_rates, print_ratios, rate, status
from sahool_dlq.drain.run import drain
from sahool_dlq.stores.lake.lake import Lake
from servers import Platform, fill, reset, servers
from stages import print_stages

_PEERS = Path(__file__).parent / "peers"
_PEER_PYTHON = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
_WRONG = """
SELECT count(*) FROM failed_events
WHERE jsonb_typeof(original_data) <> 'object' OR jsonb_typeof(attempts) <> 'array'
   OR jsonb_typeof(original_headers) <> 'object' OR original_data ->> 'id' IS NULL
   OR stack_trace NOT LIKE 'Traceback%%' OR original_sequence IS NULL
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=120_000, help="in the log, for the drain")
    parser.add_argument("--peer-messages", type=int, default=12_000, help="for batching peers")
    parser.add_argument("--loop-messages", type=int, default=3_000, help="for INSERT and ack")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    with servers() as platform:
        with status(f"Publishing {arguments.messages:,} dead letters"):
            asyncio.run(fill(platform, letters(arguments.messages)))
        whole, peers = arguments.messages, arguments.peer_messages
        drain_both(platform, whole)  # once to warm up, and for the rows of the bare copy
        rows = stored_rows(platform)
        runs = interleaved(
            {
                "drain into lake and Postgres": partial(drain_both, platform, whole),
                "bare binary COPY of the same rows": partial(bare_copy, platform, rows, whole),
                "drain into the lake alone": partial(drain_lake, platform, whole),
                "nats-py fetch, thrown away": partial(fetch_only, platform, whole),
                "nats-sinks + executemany": partial(
                    peer, platform, "nats_sinks_executemany", peers
                ),
                "FastStream + executemany": partial(
                    peer, platform, "faststream_executemany", peers
                ),
                "INSERT and ack": partial(
                    peer, platform, "insert_and_ack", arguments.loop_messages
                ),
            },
            arguments.repetitions,
        )
        print_stages(platform)
    print_rates("Rows into PostgreSQL, medians", runs)
    both, copy, lake, fetch, sinks, stream, insert = runs.values()
    print_ratios(
        [
            ("drain ÷ bare binary COPY", _ratio(both, copy), "≥ 0.6"),
            ("drain ÷ INSERT and ack", _ratio(both, insert), "≥ 10"),
            ("drain ÷ FastStream + executemany", _ratio(both, stream), "≥ 3"),
            ("drain ÷ nats-sinks + executemany", _ratio(both, sinks), "≥ 2.5"),
            ("drain into the lake ÷ nats-py fetch", _ratio(lake, fetch), "≥ 1.5"),
        ]
    )
    if not sinks:
        console.print("FastStream and nats-sinks are not installed: run `make bench-peers` first.")


def drain_both(platform: Platform, count: int) -> Run:
    """The drain, from an empty database and lake."""
    reset(platform)
    watch = _watch(platform)
    report = asyncio.run(drain(platform.settings))
    run = watch.run(count)
    assert report.drained == count, report
    check(platform, count)
    check_lake(platform, count)
    return run


def drain_lake(platform: Platform, count: int) -> Run:
    """The drain with a complete PostgreSQL and an empty lake."""
    reset(platform)
    asyncio.run(drain(platform.settings))
    reset(platform, lake_only=True)
    watch = _watch(platform)
    report = asyncio.run(drain(platform.settings))
    run = watch.run(count)
    assert report.drained == count, report
    check_lake(platform, count)
    return run


def stored_rows(platform: Platform) -> list[bytes]:
    """What the drain stored, in PostgreSQL's own binary format."""
    with (
        psycopg.connect(platform.dsn) as connection,
        connection.cursor().copy("COPY failed_events TO STDOUT (FORMAT BINARY)") as copy,
    ):
        data = b"".join(bytes(part) for part in copy)
    return [data[at : at + (1 << 18)] for at in range(0, len(data), 1 << 18)]


def bare_copy(platform: Platform, rows: list[bytes], count: int) -> Run:
    """PostgreSQL's bound: the same rows, prebuilt, in one COPY and one commit."""
    reset(platform)
    watch = _watch(platform)
    with (
        psycopg.connect(platform.dsn) as connection,
        connection.cursor().copy("COPY failed_events FROM STDIN (FORMAT BINARY)") as copy,
    ):
        for part in rows:
            copy.write(part)
    run = watch.run(count)
    check(platform, count)
    return run


def fetch_only(platform: Platform, count: int) -> Run:
    """Read everything with nats-py's fetch, acknowledge nothing, keep nothing."""

    async def read() -> Run:
        async with await nats.connect(platform.settings.nats_url.get_secret_value()) as client:
            watch, seen = _watch(platform), 0
            subscription = await client.jetstream().pull_subscribe(
                platform.settings.subjects.dead_letters,
                stream=platform.settings.dlq_stream,
                config=ConsumerConfig(ack_policy=AckPolicy.NONE),
            )
            while seen < count:
                seen += len(await subscription.fetch(min(1_000, count - seen), timeout=10))
            run = watch.run(seen)
            await subscription.unsubscribe()
            return run

    return asyncio.run(read())


def peer(platform: Platform, name: str, count: int) -> Run | None:
    """A peer's script, in its own environment; None if there is no such environment."""
    python = sys.executable if name == "insert_and_ack" else _PEER_PYTHON
    if not Path(python).exists():
        return None
    reset(platform)
    settings = platform.settings
    watch = _watch(platform)
    done = subprocess.run(
        [
            *(python, _PEERS / f"{name}.py", "--nats-url", settings.nats_url.get_secret_value()),
            *("--dsn", platform.dsn, "--stream", settings.dlq_stream),
            *("--subject", settings.subjects.dead_letters, "--rows", str(count)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    servers_cpu = watch.run(count).cpu_seconds
    value = json.loads(done.stdout.splitlines()[-1])
    asyncio.run(forget_consumers(platform))
    check(platform)
    cpu = {**servers_cpu, "client": value["cpu_seconds"]}
    return Run(value["rows"], value["seconds"], cpu)


async def forget_consumers(platform: Platform) -> None:
    """Delete the consumers, so that the next run reads from the start again."""
    async with await nats.connect(platform.settings.nats_url.get_secret_value()) as client:
        js, stream = client.jetstream(), platform.settings.dlq_stream
        for info in await js.consumers_info(stream):
            await js.delete_consumer(stream, info.name)


def check(platform: Platform, count: int | None = None) -> None:
    """Every row is in PostgreSQL, with content of the right kind."""
    with psycopg.connect(platform.dsn) as connection:
        found = connection.execute("SELECT count(*) FROM failed_events").fetchone()
        wrong = connection.execute(_WRONG).fetchone()
    assert wrong == (0,), f"{wrong} of {found} rows are not what was sent"
    assert count is None or found == (count,), found


def check_lake(platform: Platform, count: int) -> None:
    """Every row is in the lake, fingerprinted and redacted."""
    frame = Lake(platform.settings.lake).read("dead_letters")
    assert frame.height == frame["dlq_sequence"].n_unique() == count
    assert frame["group_id"].str.len_chars().eq(16).all()
    secrets = frame["original_data"].str.contains(r"@example\.org|k-1234")
    assert frame["original_data"].str.contains("redacted:email", literal=True).any()
    assert not secrets.any()


def _watch(platform: Platform) -> Stopwatch:
    return Stopwatch({"postgres": platform.postgres.pid, "nats": platform.nats.pid})


def _ratio(ours: list[Run], theirs: list[Run]) -> float | None:
    return rate(ours) / rate(theirs) if ours and theirs else None


if __name__ == "__main__":
    main()
