"""`dlq try` on a service with a bug: fails before the repair, succeeds after it."""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.events import NATSConsumer, NATSConsumerConfig
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.platform_log import execute, query, told
from support.running import dlq

PRICING = '''"""A service that has a bug."""

import json
import time

from sahool_dlq.events import ConsumerContext, ProcessingResult


def price(event):
    if event.get("card") == "4111 1111 1111 1111":
        raise PermissionError("this card is stolen")
    return event["price"] * event["count"]


async def handle(context: ConsumerContext) -> ProcessingResult:
    event = json.loads(context.data)
    price(event)
    return ProcessingResult.SUCCESS
'''
BUG = 'event["price"] * event["count"]'
GOOD, BAD = {"price": 2, "count": 3}, {"count": 3, "password": "hunter2"}


class Service:
    """A working copy, and the service that was deployed from it."""

    def __init__(self, settings: Settings, client: Client, folder: Path) -> None:
        self.settings, self.client, self.folder = settings, client, folder
        self.folder.mkdir()
        self.file = folder / "pricing.py"
        self.write(PRICING)

    def write(self, code: str) -> None:
        self.file.write_text(code)

    def change(self, before: str, after: str) -> None:
        assert PRICING.count(before) == 1
        self.write(PRICING.replace(before, after))

    async def run_on(self, events: list[dict[str, Any]], name: str = "pricing") -> None:
        """Let the service handle events with its present code, and drain the failures."""
        subject, js = f"{self.settings.subject_prefix}.analysis.{name}", self.client.jetstream()
        for number, event in enumerate(events):
            await js.publish(subject, json.dumps({"event_id": f"{name}{number}", **event}).encode())
        spec = importlib.util.spec_from_file_location(f"pricing_{name}", self.file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        async with self._running(name, subject, module.handle) as consumer:
            async with asyncio.timeout(60):
                while sum(c.succeeded + c.dead_lettered for c in _counters(consumer)) < len(events):
                    await asyncio.sleep(0.02)
        await drain_log(self.settings)

    @contextlib.asynccontextmanager
    async def _running(self, name: str, subject: str, handler: Any) -> AsyncIterator[NATSConsumer]:
        settings = self.settings
        config = NATSConsumerConfig(
            servers=[settings.nats_url],
            name=name,
            consumer_name=name,
            stream_name=settings.events_stream,
            dlq_stream_name=settings.dlq_stream,
            dlq_subject_prefix=f"{settings.subject_prefix}.dlq",
            max_retries=0,
        )
        consumer = NATSConsumer(config)
        assert await consumer.connect()
        await consumer.subscribe(handler, subject)
        consumer.start_in_background()
        try:
            yield consumer
        finally:
            await consumer.close()

    async def tried(self, *arguments: str) -> tuple[int, str, str]:
        done = await dlq(
            self.settings, "try", "pricing:handle", "--at", str(self.folder), *arguments
        )
        return done.exit_code, done.stdout, done.stderr

    async def pytest(self, file: Path) -> subprocess.CompletedProcess[str]:
        """Run the written test as a user would, in another folder."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "DLQ"))}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
        return await asyncio.to_thread(
            subprocess.run, command, cwd=self.folder, env=inherited, capture_output=True, text=True
        )


def _counters(consumer: NATSConsumer) -> list[Any]:
    return [each.counters for each in consumer._subscriptions]


@pytest.fixture
def service(settings: Settings, client: Client, tmp_path: Path) -> Service:
    return Service(settings, client, tmp_path / "pricing")


async def state(settings: Settings, client: Client) -> list[Any]:
    """Everything that a trial must not change."""
    names = (settings.events_stream, settings.dlq_stream, settings.totals_stream)
    streams = [(await client.jetstream().stream_info(name)).state for name in names]
    consumer = await client.jetstream().consumer_info(settings.events_stream, "pricing")
    return [
        *((each.messages, each.first_seq, each.last_seq) for each in streams),
        (consumer.ack_floor, consumer.delivered, consumer.num_pending),
        query(settings, "SELECT *, xmin::text FROM failed_events ORDER BY id"),
    ]


async def test_red_then_repaired_then_green_and_nothing_was_published_or_stored(
    settings: Settings, client: Client, service: Service
) -> None:
    await service.run_on([GOOD, BAD] * 5)
    [group] = query(settings, "SELECT DISTINCT group_id AS id FROM failed_events")
    before = await state(settings, client)
    line = PRICING.splitlines().index(f"    return {BUG}") + 1

    chosen = ("--group", group["id"][:5], "--reason", "look", "--by", "ana")
    tests = service.folder / "tests"
    status, said, errors = await service.tried(*chosen, "--write-test", str(tests))
    assert status == 1
    assert f"0 of 5 pass; 5 raise KeyError at pricing.py:{line}, as before" in said
    assert "Nothing was published, acknowledged or stored here." in errors
    written = tests / f"test_dlq_{group['id']}.py"
    assert f"python -m pytest {written}" in said.replace("\n", "")
    text = await asyncio.to_thread(written.read_text)
    assert "hunter2" not in text
    red = await service.pytest(written)
    assert red.returncode == 1, red.stdout + red.stderr
    assert "3 failed" in red.stdout
    assert "KeyError: 'price'" in red.stdout

    service.change(BUG, 'event.get("price", 0) * event["count"]')
    status, said, _ = await service.tried(*chosen)
    assert status == 0
    assert "all of 5 pass" in said
    green = await service.pytest(written)
    assert (green.returncode, "3 passed" in green.stdout) == (0, True), green.stdout

    status, said, _ = await service.tried("--all-open", "--json")
    assert status == 0
    report = json.loads(said)
    assert report["summary"] == (
        f"This code cures group {group['id']} (5 of 5 events), breaks none of 5 sampled successes."
    )
    assert report["groups"][0]["is_cured"]
    assert await state(settings, client) == before
    execute(settings, "UPDATE failed_events SET status = 'resolved'")
    status, said, _ = await service.tried("--all-open")
    assert status == 0
    assert "finds no open failure to cure, breaks none of 5 sampled successes." in said
    audit = query(settings, "SELECT * FROM audit_log ORDER BY id")
    assert {row["action"] for row in audit} == {"payload.tried"}
    assert [len(row["failure_ids"]) for row in audit] == [5, 5, 5, 0, 0]
    assert (audit[0]["actor"], audit[0]["reason"]) == ("ana", "look")
    assert audit[3]["detail"] == {"successes": 5, "handler": "pricing:handle"}


async def test_a_mend_that_fails_elsewhere_and_breaks_successes_is_told_for_ci(
    settings: Settings, client: Client, service: Service
) -> None:
    await service.run_on([GOOD] * 12 + [BAD] * 3 + [{"count": "x"}])
    [group] = query(settings, "SELECT DISTINCT group_id AS id FROM failed_events")
    # It cures those that lack the price, not the one whose count is a text, and breaks the rest.
    mend = 'event["prices"] if "price" in event else event["count"] // 2'
    service.change(BUG, mend)
    line = PRICING.splitlines().index(f"    return {BUG}") + 1
    status, said, _ = await service.tried("--group", group["id"])
    assert status == 1
    assert f"3 of 4 pass; 1 raises TypeError at pricing.py:{line}, which is another group (" in said
    assert ", not seen before)" in said

    status, said, _ = await service.tried("--all-open", "--successes", "6", "--format", "github")
    assert status == 1
    lines = said.splitlines()
    assert re.match(
        rf"::error file=pricing.py,line={line},title=a success breaks::6 raise KeyError", lines[0]
    )
    assert lines[1].startswith(f"::warning file=pricing.py,line={line},title=group ")
    assert lines[2].endswith("(3 of 4 events), breaks 6 of 6 sampled successes.")


async def test_an_event_that_is_gone_is_counted_in_json(
    settings: Settings, client: Client, service: Service
) -> None:
    await service.run_on([BAD, BAD])
    [first] = query(
        settings,
        "SELECT original_sequence AS event, dlq_sequence AS letter FROM failed_events"
        " ORDER BY original_sequence LIMIT 1",
    )
    js = client.jetstream()
    await js.delete_msg(settings.events_stream, first["event"])
    await js.delete_msg(settings.dlq_stream, first["letter"])
    status, said, _ = await service.tried("--service", "pricing", "--json")
    assert status == 1
    [group] = json.loads(said)["groups"]
    assert (group["tried"], list(group["missing"].values())) == (1, [1])


async def test_no_test_is_written_of_events_that_fail_only_by_what_is_masked(
    settings: Settings, client: Client, service: Service
) -> None:
    await service.run_on([{**GOOD, "card": "4111 1111 1111 1111"}])
    tests = service.folder / "tests"
    chosen = ("--service", "pricing", "--write-test", str(tests))
    status, _, errors = await service.tried(*chosen)
    assert status == 1
    assert "none of its events fails as before when masked" in errors
    assert not await asyncio.to_thread(tests.exists)


async def test_what_cannot_be_tried_is_one_sentence(
    settings: Settings, client: Client, service: Service
) -> None:
    await service.run_on([BAD])
    await service.run_on([BAD], "billing")
    for arguments, status, words in (
        (("--service", "nobody"), 1, "No open failure matches"),
        (("--all-open",), 1, "fails in billing and in pricing: choose one with --service."),
        ((), 2, "Say which failures"),
    ):
        found, said, errors = await service.tried(*arguments)
        assert (found, said) == (status, "")
        assert words in errors
    await client.jetstream().purge_stream(settings.events_stream)
    for sequence in (1, 2, 3, 4):
        with contextlib.suppress(Exception):
            await client.jetstream().delete_msg(settings.dlq_stream, sequence)
    found, said, errors = await service.tried("--service", "pricing", "--json")
    assert (found, said) == (1, "")
    assert "No event can be read any more" in told(errors)
    execute(settings, "UPDATE failed_events SET status = 'resolved'")
    found, said, _ = await service.tried("--all-open", "--json")
    assert found == 0
    assert json.loads(said)["summary"] == (
        "This code finds no open failure to cure; no success could be tried: no failure names its"
        " consumer."
    )  # since handlers of two services are called so
