"""`dlq monitor` as a process: it stores and reports a failure while it runs, and stops in order."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client

from sahool_dlq.settings import Settings
from support.alert_inbox import inbox
from support.consumer_log import until
from support.platform_log import DLQ, ROOT, environment, failures, in_lake, letter, publish, told


class Monitor:
    """A running `dlq monitor --json`, and what it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.printed: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.printed if line["kind"] == kind]

    async def shown(self, kind: str, count: int) -> list[dict[str, Any]]:
        async def is_shown() -> bool:
            return len(self.of(kind)) >= count or self.process.returncode is not None

        await until(is_shown, 120)
        return self.of(kind)

    async def end(self, sign: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(sign)
        assert self.process.stderr is not None
        errors = await self.process.stderr.read()
        await self._reading
        return await self.process.wait(), errors.decode()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.printed.append(json.loads(line))


@asynccontextmanager
async def monitor(settings: Settings, *arguments: str, **more: str) -> AsyncIterator[Monitor]:
    process = await asyncio.create_subprocess_exec(
        *[*DLQ, "monitor", "--json", *arguments],
        cwd=ROOT,
        env=environment(settings, **more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Monitor(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stored(settings: Settings, count: int) -> None:
    async def is_stored() -> bool:
        return len(failures(settings)) >= count

    await until(is_stored, 120)


async def test_a_failure_is_stored_and_reported_and_sigterm_ends_it_in_order(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, [letter(1)])  # while nothing runs
    async with (
        inbox() as box,
        monitor(settings, DLQ_ALERT_URLS=json.dumps([box.url])) as running,
    ):
        await running.shown("dead_letter", 1)
        critical = [letter(n, error_type="DatabaseError") for n in range(2, 12)]
        await publish(client, settings, critical)
        await stored(settings, 11)
        assert len(await running.shown("dead_letter", 11)) == 11
        await running.shown("alert", 1)
        await until(lambda: _has(box.messages, 1))
        await publish(client, settings, [letter(12, error_message="secret=hunter2")])
        await running.shown("dead_letter", 12)
        status, errors = await running.end(signal.SIGTERM)
    assert (status, errors) == (0, "")
    [end] = running.of("end")
    assert end["last_sequence"] == (await _last(client, settings)) == 22
    assert (end["dead_letters"], end["alerts"], end["drained"]) == (12, 1, 22)
    assert "DatabaseError in satellite-service: 10 dead letters" in box.messages[0]["title"]
    rows = failures(settings)  # the last drain came after the last dead letter and its news
    assert [row["alert_sent"] for row in rows] == [False, *[True] * 10, False]
    assert in_lake(settings).height == 12
    assert "hunter2" not in json.dumps(running.printed)


async def test_it_continues_where_it_was_and_ctrl_c_ends_it(
    settings: Settings, client: Client
) -> None:
    for number in (1, 2):
        await publish(client, settings, [letter(number)])
        async with monitor(settings, "--auto-retry", "0") as running:
            [shown] = await running.shown("dead_letter", 1)
            assert shown["action"] == "retry"
            status, _ = await running.end(signal.SIGINT)
        assert status == 0
        assert len(running.of("dead_letter")) == 1
    assert all(row["redrive_not_before"] is not None for row in failures(settings))


async def test_a_channel_that_makes_no_sense_ends_it_in_one_sentence(
    settings: Settings, client: Client
) -> None:
    async with monitor(settings, DLQ_ALERT_URLS='["nope://x"]') as running:
        assert running.process.stderr is not None
        errors = (await running.process.stderr.read()).decode()
        assert await running.process.wait() == 1
    assert told(errors).startswith("DLQ_ALERT_URLS: entry 1 is not a channel")
    assert errors.count("\n") == 1


async def _has(items: list[Any], count: int) -> bool:
    return len(items) >= count


async def _last(client: Client, settings: Settings) -> int:
    return (await client.jetstream().stream_info(settings.dlq_stream)).state.last_seq
