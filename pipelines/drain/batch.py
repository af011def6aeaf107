"""Messages of the log to a batch that both sinks take: decode, redact, fingerprint."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from pipelines.deadletter.case_events import CaseEvent, decode_case_event
from pipelines.deadletter.decode import decode
from pipelines.deadletter.frames import case_event_frame, dead_letter_frame
from pipelines.deadletter.grouping import GroupingRules
from pipelines.deadletter.message import LogMessage
from pipelines.deadletter.record import DeadLetter
from pipelines.deadletter.redaction import Redactor
from pipelines.deadletter.subjects import Subjects, matches
from pipelines.stores.failed_events import Batch


def build_batch(
    messages: Sequence[LogMessage],
    *,
    epoch: str,
    stream: str,
    subjects: Subjects,
    redactor: Redactor,
    grouping: GroupingRules | None = None,
    keeps_payloads: bool = False,
) -> Batch:
    """The batch of these messages, which are in log order and not empty."""
    letters: list[DeadLetter] = []
    payloads: list[LogMessage] = []
    events: list[CaseEvent] = []
    for message in messages:
        if matches(subjects.dead_letters, message.subject):
            letters.append(decode(message, epoch, stream))
            payloads.append(message)
        else:
            event = decode_case_event(message, epoch)
            event.reason = redactor.redact_text(event.reason) if event.reason else None
            events.append(event)
    last = messages[-1]
    return Batch(
        epoch=epoch,
        last_sequence=last.sequence,
        letters=letters,
        events=events,
        letter_frame=dead_letter_frame(letters, redactor, grouping),
        event_frame=case_event_frame(events, redactor),
        last_timestamp_ns=last.timestamp_ns,
        payloads=payloads if keeps_payloads else None,
    )


def without(batch: Batch, seen: pl.DataFrame) -> Batch:
    """The batch less the messages (`dlq_sequence`, `published_at`) that are stored already."""
    if seen.is_empty():
        return batch
    message = ["dlq_sequence", "published_at"]
    letters = batch.letter_frame.with_row_index("_row")
    letters = letters.join(seen, on=message, how="anti", maintain_order="left")
    events = batch.event_frame.join(seen, on=message, how="anti", maintain_order="left")
    kept, stored = letters["_row"].to_list(), set(events["dlq_sequence"])
    return replace(
        batch,
        letters=[batch.letters[row] for row in kept],
        events=[event for event in batch.events if event.dlq_sequence in stored],
        letter_frame=letters.drop("_row"),
        event_frame=events,
        payloads=batch.payloads and [batch.payloads[row] for row in kept],
    )
