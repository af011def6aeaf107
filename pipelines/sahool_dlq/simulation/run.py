"""Writes a history to a lake with its own times, or to the log with the server's current times."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from sahool_dlq.connections import find_log, open_nats
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.drain.batch import build_batch
from sahool_dlq.errors import SimulationError
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.counters import Counters
from sahool_dlq.simulation.history import History, Letter, News
from sahool_dlq.simulation.messages import Writer
from sahool_dlq.simulation.scenario import Scenario, time_of
from sahool_dlq.simulation.truth import Truth, truth_of
from sahool_dlq.stores.epoch_ids import epoch_id
from sahool_dlq.stores.lake.lake import LAYOUTS, Lake

__all__ = ["SimulationReport", "into_lake", "into_stream"]

_BATCH = 20_000
_IN_FLIGHT = 500

Progress = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What was written, and the planted causes."""

    dead_letters: int
    case_events: int
    totals: int  # samples of the consumers' counters
    seconds: float
    truth: Truth


def into_lake(
    settings: Settings,
    scenario: Scenario,
    progress: Progress = lambda _: None,
    *,
    is_added: bool = False,
) -> SimulationReport:
    """Write the history to the lake through the drain's decoding, redaction and fingerprint.

    Every message has the server time of its event, so the lake looks as if drains had run all the
    time. Raises SimulationError if the lake has rows, unless `is_added`.
    """
    started = time.monotonic()
    lake = Lake(settings.lake)
    if not is_added and any(lake.files(name) for name in LAYOUTS):
        raise SimulationError(
            f"The lake at {settings.lake} holds data already: give another --lake-uri, or --add to"
            " mix a simulated history into it."
        )
    tables = {name: lake.table(name) for name in LAYOUTS}
    epoch = epoch_id(settings.dlq_stream, time_of(scenario.start), 0)
    totals_epoch = epoch_id(settings.totals_stream, time_of(scenario.start), 0)
    if any(table.watermark(epoch) is not None for table in tables.values()):
        raise SimulationError(
            f"The lake at {settings.lake} holds a history of this time already: give another"
            " --until, or another --lake-uri."
        )
    rules = settings.rules
    redactor = settings.redactor(rules)
    history, counters = History(scenario), Counters(scenario)
    letters = events = samples = last = 0
    for messages in _batched(_messages(settings, history, counters)):
        last = messages[-1].sequence
        batch = build_batch(
            messages,
            epoch=epoch,
            stream=settings.dlq_stream,
            subjects=settings.subjects,
            redactor=redactor,
            grouping=rules.grouping,
        )
        tables["dead_letters"].append(batch.letter_frame, epoch, last)
        tables["case_events"].append(batch.event_frame, epoch, last)
        letters += batch.letter_frame.height
        events += batch.event_frame.height
        progress(_share(scenario, messages[-1].timestamp_ns / 1e9))
    for part in counters.take(0).iter_slices(500_000):
        samples += part.height
        tables["service_totals"].append(part, totals_epoch, samples)
    truth = truth_of(history, settings.subjects, redactor, rules.grouping)
    return SimulationReport(letters, events, samples, round(time.monotonic() - started, 3), truth)


async def into_stream(
    settings: Settings,
    scenario: Scenario,
    progress: Progress = lambda _: None,
    *,
    is_added: bool = False,
) -> SimulationReport:
    """Publish the history to the log, for drains.

    The times of failures and decisions are those of the history; the server's times are current, so
    there are no totals, which only the server dates. Raises SimulationError if the log has
    messages, unless `is_added`.
    """
    started = time.monotonic()
    counts = {Letter: 0, News: 0}
    async with open_nats(settings, "dlq simulate") as client:
        js = client.jetstream()
        await ensure_streams(js, settings.stream_names)
        state = await find_log(client, settings)
        if state.message_count and not is_added:
            raise SimulationError(
                f"The stream {state.stream} holds {state.message_count:,} messages already:"
                " simulate on another server, or give --add to mix a history into it."
            )
        history = History(scenario)
        writer = Writer(settings.subjects, scenario.rng("messages' texts"))
        happenings = iter(history)
        while window := list(islice(happenings, _IN_FLIGHT)):
            for happening in window:
                counts[type(happening)] += 1
            await asyncio.gather(*(js.publish(*writer.write(item)) for item in window))
            progress(_share(scenario, window[-1].at))
    rules = settings.rules
    truth = truth_of(history, settings.subjects, settings.redactor(rules), rules.grouping)
    seconds = round(time.monotonic() - started, 3)
    return SimulationReport(counts[Letter], counts[News], 0, seconds, truth)


def _messages(settings: Settings, history: History, counters: Counters) -> Iterator[LogMessage]:
    """The messages as the server would have stored them; counts what consumers count."""
    scenario = history.scenario
    writer = Writer(settings.subjects, scenario.rng("messages' texts"))
    for sequence, happening in enumerate(history, 1):
        if isinstance(happening, Letter):
            counters.count(happening)
        subject, body = writer.write(happening)
        yield LogMessage(subject, sequence, round(happening.at * 1e6) * 1000, body)
    counters.sample(scenario.end)


def _batched(messages: Iterator[LogMessage]) -> Iterator[list[LogMessage]]:
    while batch := list(islice(messages, _BATCH)):
        yield batch


def _share(scenario: Scenario, at: float) -> float:
    return min((at - scenario.start) / (scenario.end - scenario.start), 1.0)
