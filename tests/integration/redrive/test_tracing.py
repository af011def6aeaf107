"""One trace from an event over its dead letter, drain and redrive to the successful delivery."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from nats.aio.client import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from test_redrive import Service, dead_letters, redrive_timeouts

from sahool_dlq import tracing
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.raw_headers import lines_of

TRACE, PARENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
CARRIED = {
    "traceparent": f"00-{TRACE:032x}-{PARENT:016x}-01",
    "tracestate": "vendor=1",
    "Nats-Msg-Id": "m1",
}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The recorded spans. A process has only one provider, so all tests of the module share it."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def by_id(spans: InMemorySpanExporter) -> dict[int, ReadableSpan]:
    return {span.context.span_id: span for span in spans.get_finished_spans()}


def chain(spans: InMemorySpanExporter, span: ReadableSpan) -> list[str]:
    """The names of the spans from one up to that of the event."""
    known, names = by_id(spans), []
    while True:
        names.append(span.name.partition(" sahool")[0].partition(" t")[0])
        assert span.parent is not None
        if span.parent.span_id == PARENT:
            return names
        span = known[span.parent.span_id]


@pytest.mark.parametrize("spelt", [str.lower, str.title])
async def test_a_failure_is_one_trace_from_its_event_to_its_cure(
    settings: Settings, client: Client, spans: InMemorySpanExporter, spelt: Callable[[str], str]
) -> None:
    carried = {spelt(name): value for name, value in CARRIED.items()}
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await client.jetstream().publish(subject, b'{"event_id": "e1"}', headers=carried)
        await dead_letters(client, settings, 1)
        await drain_log(settings)
        service.error = None
        report = await redrive_timeouts(settings)
    assert report is not None
    assert report.outcomes == {"succeeded": 1}
    recorded = spans.get_finished_spans()
    assert {span.context.trace_id for span in recorded} == {TRACE}
    assert sorted(span.name.split()[0] for span in recorded) == [
        "dead",
        "drain",
        "process",
        "process",
        "redrive",
    ]
    first, last = (span for span in recorded if span.name.startswith("process"))
    assert chain(spans, last) == ["process", "redrive", "dead letter", "process"]
    [drained] = [span for span in recorded if span.name == "drain"]
    assert chain(spans, drained) == ["drain", "dead letter", "process"]
    assert first.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in first.events] == ["exception"]
    assert last.status.status_code is trace.StatusCode.UNSET
    assert last.context.trace_state.get("vendor") == "1"
    assert drained.attributes is not None
    assert drained.attributes["dlq.sequence"] == 1
    assert service.seen[1].headers["traceparent"].split("-")[1] == f"{TRACE:032x}"
    lines = await lines_of(client, settings.events_stream, 2)
    assert len([line for line in lines if line.lower().startswith("traceparent:")]) == 1
    letter = await client.jetstream().get_msg(settings.dlq_stream, 1)
    [written] = [span for span in recorded if span.name == "dead letter"]
    assert (letter.headers or {})["traceparent"].split("-")[2] == f"{written.context.span_id:016x}"


async def test_without_tracing_the_headers_of_an_event_are_unchanged(
    settings: Settings, client: Client
) -> None:
    assert not tracing.is_tracing()
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await client.jetstream().publish(subject, b"{}", headers=CARRIED)
        await dead_letters(client, settings, 1)
        await drain_log(settings)
        service.error = None
        await redrive_timeouts(settings)
    assert service.seen[1].headers["traceparent"] == CARRIED["traceparent"]


def test_nothing_is_imported_before_the_application_records() -> None:
    code = (
        "import asyncio, sys, sahool_dlq.events.subscription, sahool_dlq.tracing as t\n"
        "with t.span('x', 'consumer', {}): t.fail_span(ValueError())\n"
        "assert t.traceparent('a') == 'a' and not t.is_tracing()\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]\n"
        "import opentelemetry.trace\n"
        "assert not t.is_tracing()\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "opentelemetry.trace.set_tracer_provider(TracerProvider())\n"
        "assert t.is_tracing()\n"
        "with t.span('x', 'consumer', {}): assert t.traceparent('a') != 'a'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
