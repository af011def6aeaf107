"""dlq exporter: what Prometheus reads, from real servers."""

import asyncio
import json
import os
import signal
import subprocess
import urllib.request

import pytest
from nats.aio.client import Client
from prometheus_client.parser import text_string_to_metric_families

from sahool_dlq.alerts import exporter
from sahool_dlq.alerts.exporter import MOST_LABELS, DLQCollector
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.settings import Settings
from support.alert_rows import add_failures
from support.platform_log import DLQ, ROOT, environment, letter, publish

Values = dict[tuple[str, tuple[str, ...]], float]


def collected(settings: Settings) -> Values:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in DLQCollector(settings, cache_seconds=0).collect()
        for sample in family.samples
    }


def scraped(settings: Settings) -> str:
    """The answer of a separate `dlq exporter` to one scrape, before it is stopped."""
    with subprocess.Popen(
        [*DLQ, "exporter", "--listen", "127.0.0.1:0", "--json"],
        cwd=ROOT,
        env=environment(settings),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with urllib.request.urlopen(url, timeout=60) as answer:
                text = str(answer.read().decode())
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    return text


async def test_the_five_metrics_and_the_pipeline_are_served(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, [letter(n) for n in range(7)])
    await drain_log(settings)
    build_all_marts(settings)
    text = await asyncio.to_thread(scraped, settings)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {
        "dlq_failures_per_minute",
        "dlq_redrive_success_ratio",
        "dlq_error_share",
        "dlq_service_health_score",
        "dlq_resolution_seconds",
    } <= families.keys()
    [health] = families["dlq_service_health_score"].samples
    assert health.labels == {"service": "satellite-service"}
    assert 0 < health.value < 100
    values = {(s.name, *s.labels.values()): s.value for f in families.values() for s in f.samples}
    assert values["dlq_failures", "pending"] == 7
    assert values["dlq_drained_sequence", settings.dlq_stream] == 7
    assert values["dlq_stream_last_sequence", "log", settings.dlq_stream] == 7
    assert values["dlq_unresolved_failures", "all", ""] == 7
    assert values["dlq_rate_per_minute", "all", ""] == 0
    assert (values["dlq_up", "nats"], values["dlq_up", "postgres"]) == (1, 1)


def test_labels_are_bounded_whatever_the_services_are_called(settings: Settings) -> None:
    for number in range(MOST_LABELS + 9):
        add_failures(settings, number + 1, service=f"s{number:03}", error_type="DatabaseError")
    values = collected(settings)
    critical = {key[1][1]: v for key, v in values.items() if key[0] == "dlq_critical_failures"}
    assert len(critical) == MOST_LABELS + 1
    assert critical["other"] == 9  # the largest of those grouped as `other`
    assert critical["s038"] == 39


def test_a_server_that_is_away_is_a_zero_and_no_error(settings: Settings) -> None:
    gone = Settings(**settings.model_dump() | {"postgres_dsn": "postgresql://127.0.0.1:1/x"})
    values = collected(gone)
    assert values["dlq_up", ("postgres",)] == 0
    assert ("dlq_failures", ("pending",)) not in values


def test_a_nats_that_does_not_answer_in_time_hides_no_metric_of_postgres(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_NATS_SECONDS", 0)
    values = collected(settings)
    assert (values["dlq_up", ("nats",)], values["dlq_up", ("postgres",)]) == (0, 1)
    assert values["dlq_unresolved_failures", ("all", "")] == 0


def test_scrapes_side_by_side_ask_the_servers_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    look = exporter.look

    async def counting(*arguments: object) -> object:
        asked.append(os.getpid())
        return await look(*arguments)

    monkeypatch.setattr(exporter, "look", counting)
    collector = DLQCollector(settings, cache_seconds=600)
    assert list(collector.collect()) == list(collector.collect())
    assert len(asked) == 1
