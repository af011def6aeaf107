"""A service uses the stream that it names, even if another stream has the same subject."""

from dataclasses import dataclass
from typing import Any

import pytest
from nats.js.api import ExternalStream, StreamConfig, StreamSource, SubjectTransform

from sahool_dlq.errors import StreamError
from sahool_dlq.events import (
    DLQAction,
    DLQConsumer,
    DLQConsumerConfig,
    DLQEvent,
    NATSConsumer,
    NATSConsumerConfig,
)
from support.consumer_log import SUCCESS, Calls, Log, equals, seen, until


@dataclass
class Edge:
    """Two streams of events, and other streams that source or mirror them."""

    log: Log

    def name(self, stream: str) -> str:
        return f"{stream}_{self.log.prefix}"

    def subject(self, rest: str) -> str:
        return f"edge-{self.log.prefix}.{rest}"

    async def make(self, stream: str, **config: Any) -> str:
        await self.log.js.add_stream(StreamConfig(name=self.name(stream), **config))
        return self.name(stream)

    def source(self, stream: str, src: str = "", dest: str = "", **more: Any) -> StreamSource:
        transforms = [SubjectTransform(self.subject(src), self.subject(dest))] if src else None
        return StreamSource(self.name(stream), subject_transforms=transforms, **more)

    async def consumer(self, **changes: Any) -> NATSConsumer:
        """A consumer without a named stream, unless `changes` name one."""
        config = self.log.config().model_dump(exclude={"stream_name"})
        consumer = NATSConsumer(NATSConsumerConfig(**config | changes))
        assert await consumer.connect()
        return consumer

    async def bound_to(self, durable: str = "ndvi") -> list[str]:
        """The streams that have a consumer of this name, on a server that has many others."""
        names: list[str] = []
        while streams := await self.log.js.streams_info(len(names)):
            names += [str(stream.config.name) for stream in streams]
        return [
            stream
            for stream in sorted(names)
            if self.log.prefix in stream
            and durable in [info.name for info in await self.log.js.consumers_info(stream)]
        ]


@pytest.fixture
async def edge(log: Log) -> Edge:
    edge = Edge(log)
    await edge.make("A", subjects=[edge.subject("a.>")])
    await edge.make("B", subjects=[edge.subject("b.>")])
    return edge


@pytest.mark.parametrize("where", ["settings", "subscribe"])
async def test_a_stream_with_sources_is_the_one_that_is_consumed(edge: Edge, where: str) -> None:
    everything = await edge.make("ALL", sources=[edge.source("A"), edge.source("B")])
    in_settings = {"stream_name": everything} if where == "settings" else {}
    in_subscribe = everything if where == "subscribe" else None
    consumer = await edge.consumer(**in_settings)
    calls = Calls(ValueError("no"))
    await consumer.subscribe(calls, edge.subject("*.temp"), in_subscribe)
    consumer.start_in_background()
    for which in ("a.temp", "b.temp", "a.wind"):
        await edge.log.js.publish(edge.subject(which), b"{}")
    letters = await edge.log.letters(2)
    await consumer.close()
    assert await edge.bound_to() == [everything]
    assert {letter["original_stream"] for letter in letters} == {everything}
    assert {call.subject for call in calls} == {edge.subject("a.temp"), edge.subject("b.temp")}
    assert (await edge.log.js.stream_info(everything)).config.subjects in (None, [])


async def test_a_mirror_is_consumed_and_left_as_it_is_though_its_subjects_are_ours(
    edge: Edge,
) -> None:
    log = edge.log
    mirror = await edge.make("MIRROR", mirror=StreamSource(log.names.events))
    consumer = await edge.consumer(stream_name=mirror)
    calls = Calls(SUCCESS)
    await consumer.subscribe(calls)
    consumer.start_in_background()
    await log.publish({})
    await seen(calls, 1)
    await consumer.close()
    assert [call.stream for call in calls] == [mirror]
    assert await edge.bound_to() == [mirror]


async def test_what_a_transform_makes_of_subjects_is_what_a_filter_meets(edge: Edge) -> None:
    renamed = await edge.make("RENAMED", sources=[edge.source("A", "a.*.x", "n.{{wildcard(1)}}.x")])
    again = await edge.make(
        "AGAIN",
        mirror=edge.source("RENAMED"),
        subject_transform=SubjectTransform(edge.subject("n.>"), edge.subject("m.>")),
    )
    filtered = await edge.make(
        "SOME", sources=[edge.source("A", filter_subject=edge.subject("a.q"))]
    )
    await edge.log.js.publish(edge.subject("a.1.x"), b"{}")
    cases = [(renamed, "n.*.x", "a.*.x"), (again, "m.1.x", "a.1.x"), (filtered, "a.q", "a.r")]
    for stream, held, not_held in cases:
        consumer = await edge.consumer(stream_name=stream)
        calls = Calls(SUCCESS)
        await consumer.subscribe(calls, edge.subject(held))
        with pytest.raises(
            StreamError, match=rf"Stream {stream} does not receive .* \(A_\w+ can\)"
        ):
            await consumer.subscribe(calls, edge.subject(not_held), consumer_name="other")
        consumer.start_in_background()
        if stream != filtered:
            await seen(calls, 1)
        await consumer.close()


async def test_what_cannot_be_known_is_no_reason_to_refuse(edge: Edge) -> None:
    """Another account's stream; a deleted one; subjects that a stream had before."""
    far = StreamSource("FAR", external=ExternalStream("$JS.far.API", "deliver.far"))
    await edge.log.js.publish(edge.subject("a.old"), b"{}")
    await edge.log.js.update_stream(name=edge.name("A"), subjects=[edge.subject("a.new")])
    await edge.make("GONE", subjects=[edge.subject("gone.>")])
    streams = [
        await edge.make("NEAR", sources=[far]),
        await edge.make("ORPHAN", sources=[edge.source("GONE")]),
        edge.name("A"),
    ]
    await edge.log.js.delete_stream(edge.name("GONE"))
    for stream in streams:
        consumer = await edge.consumer(stream_name=stream)
        await consumer.subscribe(Calls(SUCCESS), edge.subject("a.old"))
        await consumer.close()
    assert await edge.bound_to() == sorted(streams)


async def test_several_streams_that_hold_something_of_a_filter_are_an_error(edge: Edge) -> None:
    a, b = edge.name("A"), edge.name("B")
    consumer = await edge.consumer()
    with pytest.raises(StreamError, match=f"Streams {a} and {b} all capture a part of .* give one"):
        await consumer.subscribe(Calls(SUCCESS), edge.subject("*.temp"))
    assert await edge.bound_to() == []
    await consumer.subscribe(Calls(SUCCESS), edge.subject("*.temp"), stream_name=b)
    await consumer.subscribe(Calls(SUCCESS), edge.subject("a.temp"), consumer_name="a")
    assert (await edge.bound_to(), await edge.bound_to("a")) == ([b], [a])
    await consumer.close()


async def test_a_named_stream_that_is_not_there_is_an_error(edge: Edge) -> None:
    none = edge.name("NONE")
    consumer = await edge.consumer(stream_name=none)
    with pytest.raises(StreamError, match=f"no stream {none} for .*{edge.name('A')} c"):
        await consumer.subscribe(Calls(SUCCESS), edge.subject("a.temp"))
    with pytest.raises(StreamError, match=f"There is no stream {none} for"):
        await consumer.subscribe(Calls(SUCCESS))  # subjects of ours, which another stream has
    assert await edge.bound_to() == []
    await consumer.close()


async def test_a_stream_of_sources_is_never_given_subjects_of_ours(edge: Edge) -> None:
    await edge.log.js.delete_stream(
        edge.log.names.events
    )  # no stream captures the events' subjects
    everything = await edge.make("ALL", sources=[edge.source("A")])
    consumer = await edge.consumer(stream_name=everything)
    with pytest.raises(StreamError, match=f"Stream {everything} does not receive"):
        await consumer.subscribe(Calls(SUCCESS))
    await consumer.close()
    assert (await edge.log.js.stream_info(everything)).config.subjects in (None, [])


async def test_a_named_stream_of_ours_is_created_if_no_other_has_its_subjects(log: Log) -> None:
    await log.js.delete_stream(log.names.events)
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    await consumer.subscribe(Calls(SUCCESS))
    await consumer.close()
    assert (await log.js.consumer_info(log.names.events, "ndvi")).name == "ndvi"


async def test_a_monitor_reads_a_mirror_of_the_dead_letters(edge: Edge) -> None:
    log = edge.log
    mirror = await edge.make("HUB", mirror=StreamSource(log.names.dead_letters))
    shown: list[DLQEvent] = []

    async def handle(event: DLQEvent) -> DLQAction:
        shown.append(event)
        return DLQAction.STORE

    monitor = DLQConsumer(
        DLQConsumerConfig(
            servers=[log.url],
            dlq_stream_name=mirror,
            dlq_subject=f"{log.prefix}.dlq.>",
            consumer_name="monitor",
        )
    )
    assert await monitor.connect()
    await monitor.subscribe(handle)
    monitor.start_in_background()
    await log.js.publish(f"{log.prefix}.dlq.x", b"{}")
    await seen(shown, 1)
    await monitor.close()
    assert [event.stream for event in shown] == [mirror]
    assert await edge.bound_to("monitor") == [mirror]


async def test_a_handler_that_is_not_async_is_refused_before_anything_is_made(edge: Edge) -> None:
    def handle(context: Any) -> Any:
        return SUCCESS

    consumer = await edge.consumer(stream_name=edge.name("A"))
    with pytest.raises(TypeError, match="handle is not async: write `async def`"):
        await consumer.subscribe(handle, edge.subject("a.>"))
    monitor = DLQConsumer(DLQConsumerConfig(servers=[edge.log.url]))
    assert await monitor.connect()
    with pytest.raises(TypeError, match="handle is not async"):
        await monitor.subscribe(handle)
    with pytest.raises(TypeError, match="handle is not async"):
        DLQConsumer(notifier=handle)
    await monitor.close()
    await consumer.close()
    assert await edge.bound_to() == []


async def test_one_that_turns_out_not_to_be_is_called_once_for_each_event(edge: Edge) -> None:
    calls: list[Any] = []
    consumer = await edge.consumer(max_retries=3)
    await consumer.subscribe(lambda context: calls.append(context) or SUCCESS)
    consumer.start_in_background()
    await edge.log.publish({"n": 1})
    [letter] = await edge.log.letters(1)
    await consumer.close()
    assert len(calls) == 1
    assert letter["error_type"] == "TypeError"
    assert "<lambda> is not async: it returned ProcessingResult" in letter["error_message"]
    assert letter["handler"].endswith("<lambda>")
    await until(lambda: equals(edge.bound_to(), [edge.log.names.events]))
