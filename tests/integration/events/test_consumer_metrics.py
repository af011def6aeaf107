"""The metrics of a process's consumers, scraped over HTTP as Prometheus does."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from urllib.request import urlopen

import pytest
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families

from sahool_dlq.events import ConsumerContext, ProcessingResult
from sahool_dlq.jetstream.streams import ensure_streams
from support.consumer_log import DEAD_LETTER, SUCCESS, Log, equals, running, until

Scrape = Callable[[str], dict[str, float]]


@pytest.fixture
def scrape() -> Iterator[Scrape]:
    """Reads the samples of one service, by name (and bucket), without the common prefix."""
    server, thread = start_http_server(0, addr="127.0.0.1")

    def ask(service: str) -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        found = {}
        for sample in (sample for family in families for sample in family.samples):
            if sample.labels.get("service") == service:
                assert set(sample.labels) - {"le"} == {"service", "consumer"}
                name = sample.name.removeprefix("dlq_consumer_")
                found[name + sample.labels.get("le", "")] = sample.value
        return found

    yield ask
    server.shutdown()
    server.server_close()
    thread.join()


async def test_prometheus_is_told_what_became_of_the_events(log: Log, scrape: Scrape) -> None:
    service = f"service-{log.prefix}"
    entered, finish = asyncio.Event(), asyncio.Event()

    async def handle(context: ConsumerContext) -> ProcessingResult:
        match context.data:
            case b'"hold"':
                entered.set()
                await finish.wait()
            case b'"dead"':
                return DEAD_LETTER
            case b'"once"' if context.attempt == 0:
                raise ValueError("once")
        return SUCCESS

    config = log.config(name=service, max_retries=1, totals_interval_seconds=0.1)
    async with running(config, handle):
        for body in ("good", "dead", "once", "hold"):
            await log.publish(body)
        await entered.wait()
        await until(lambda: equals(log.pending(), (0, 1)))  # all but the one that is being handled
        await until(lambda: _has(lambda: scrape(service), ack_pending=1, in_flight=1))
        during = scrape(service)
        finish.set()
        await log.settled()
    counted = {"handled_total": 4, "succeeded_total": 2, "retried_total": 1}
    assert {name: during[name] for name in counted} == counted
    assert (during["dead_lettered_total"], during["skipped_total"]) == (1, 0)
    assert during["log_writable"] == 1
    after = scrape(service)
    assert (after["handled_total"], after["in_flight"]) == (5, 0)
    assert after["handler_seconds_count"] == after["handler_seconds_bucket+Inf"] == 5
    assert after["handler_seconds_sum"] > 0
    buckets = [value for name, value in after.items() if name.startswith("handler_seconds_bucket")]
    assert buckets == sorted(buckets)


async def test_it_says_when_no_dead_letter_can_be_written(log: Log, scrape: Scrape) -> None:
    service = f"service-{log.prefix}"

    async def handle(context: ConsumerContext) -> ProcessingResult:
        return DEAD_LETTER

    async with running(log.config(name=service), handle):
        await log.js.delete_stream(log.names.dead_letters)
        await log.publish({})
        await until(lambda: _has(lambda: scrape(service), log_writable=0))
        await ensure_streams(log.js, log.names)
        await until(lambda: _has(lambda: scrape(service), log_writable=1, dead_lettered_total=1))


async def test_a_counter_does_not_go_back_when_its_consumer_is_created_again(
    log: Log, scrape: Scrape
) -> None:
    service = f"service-{log.prefix}"

    async def handle(context: ConsumerContext) -> ProcessingResult:
        return SUCCESS

    for count in (1, 2, 3):
        async with running(log.config(name=service), handle):
            await log.publish({})
            await log.settled()
        gc.collect()
        assert scrape(service)["succeeded_total"] == count


async def _has(ask: Callable[[], dict[str, float]], **wanted: float) -> bool:
    found = await asyncio.to_thread(ask)
    return all(found.get(name) == value for name, value in wanted.items())
