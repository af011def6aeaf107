"""A monitor that decides about every dead letter, and a drain that stores all of them.

pip install 'sahool-dlq[pipelines,embedded]'     # brings NATS and PostgreSQL, nothing else needed
python dlq_monitor_example.py

A service fails on four events, each with a different error. The handler below decides what to do,
the notifier sends an alert, and the drain writes the database. The lines that are printed at the
end are its rows. On your own servers, `dlq monitor` does all of this, and alerts through
DLQ_ALERT_URLS.
"""

import asyncio
import json
import tempfile
from pathlib import Path

import psycopg

from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.events import (
    ConsumerContext,
    DLQAction,
    DLQConsumerConfig,
    DLQEvent,
    NATSConfig,
    NATSConsumerConfig,
    NATSPublisher,
    ProcessingResult,
    start_consumer,
    start_dlq_consumer,
)
from sahool_dlq.jobs.drain import drain_log, migrate_all
from sahool_dlq.settings import Settings


class DatabaseError(Exception):
    """An error as a database driver raises it."""


FAILURES = {
    "field-1": TimeoutError("the tile server is slow"),
    "field-2": DatabaseError("relation fields does not exist"),
    "field-3": ValueError("an area of -3 ha"),
    "test-field": ValueError("an area of 0 ha"),
}


async def handle(context: ConsumerContext) -> ProcessingResult:
    """The handler of the service: it fails on every event."""
    raise FAILURES[json.loads(context.data)["field_id"]]


async def decide(event: DLQEvent) -> DLQAction:
    """Decide about a dead letter; the drain stores it whatever the decision is."""
    if event.field_id and event.field_id.startswith("test-"):
        return DLQAction.DISCARD  # no person needs to see it
    if event.error_type == "TimeoutError":
        return DLQAction.RETRY  # the scheduled redrive takes it, when it is due
    if event.error_type == "DatabaseError":
        return DLQAction.ALERT  # the notifier is called, until it succeeds
    return DLQAction.STORE


async def page(event: DLQEvent) -> None:
    """The notifier: call your pager here. If it raises, it is called again."""
    print(f"PAGE: {event.error_type} in {event.service}: {event.error_message}")


async def run(settings: Settings) -> None:
    """Fail, monitor, drain."""
    servers = [settings.nats_url]
    await migrate_all(settings)
    done: asyncio.Queue[str] = asyncio.Queue()

    async def watched(event: DLQEvent) -> DLQAction:
        action = await decide(event)
        done.put_nowait(f"{event.field_id}: {action.name}")
        return action

    config = DLQConsumerConfig(servers=servers, auto_retry_delay_hours=6)
    monitor = await start_dlq_consumer(watched, config, notifier=page)
    service = await start_consumer(
        handle, NATSConsumerConfig(servers=servers, name="area-service", max_retries=0)
    )
    publisher = NATSPublisher(NATSConfig(servers=servers))
    await publisher.connect()
    for field in FAILURES:
        event = json.dumps({"field_id": field, "event_id": f"event of {field}"})
        await publisher.publish("sahool.analysis.area_measured", event.encode())
    for _ in FAILURES:
        print(await done.get())
    for running in (publisher, service, monitor):
        await running.close()  # events that are being handled are finished first
    await drain_log(settings)


def main() -> None:
    """Run on separate servers, which are deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with NatsServer(home) as nats, PostgresServer(home) as postgres:
            settings = Settings(home=home, nats_url=nats.url, postgres_dsn=postgres.dsn)
            asyncio.run(run(settings))
            with psycopg.connect(postgres.dsn) as connection:
                for row in connection.execute(
                    "SELECT field_id, error_type, status, alert_sent,"
                    " redrive_not_before - published_at FROM failed_events ORDER BY field_id"
                ):
                    print(*row, sep=" | ")
        postgres.remove()


if __name__ == "__main__":
    main()
