"""Turns messages of the log into a batch for both sinks: decode, redact, fingerprint."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from sahool_dlq.deadletter.assemble import case_event_frame, dead_letter_frame
from sahool_dlq.deadletter.case_events import decode_case_event
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.envelope.exact import BUILT_IN
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.record import TEXT_LIMITS
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.sanitize import clean_text
from sahool_dlq.deadletter.subjects import Subjects, matches
from sahool_dlq.stores.postgres.failed_events import Batch


def build_batch(
    messages: Sequence[LogMessage],
    *,
    epoch: str,
    stream: str,
    subjects: Subjects,
    redactor: Redactor,
    grouping: GroupingRules | None = None,
    decoders: Decoders = BUILT_IN,
    keeps_payloads: bool = False,
) -> Batch:
    """The batch of these messages, which must be in log order and not empty."""
    is_letter = {
        subject: matches(subjects.dead_letters, subject)
        for subject in {message.subject for message in messages}
    }
    letters = [message for message in messages if is_letter[message.subject]]
    events = [decode_case_event(m, epoch) for m in messages if not is_letter[m.subject]]
    for event in events:
        event.reason = redactor.redact_text(event.reason) if event.reason else None
        event.consumer_version = kept_version(event.consumer_version, redactor)
        event.resolved_in_version = kept_version(event.resolved_in_version, redactor)
        if event.group_id is not None:  # its texts are read from there, as from the lake's copy
            event.body = redactor.redact_json(event.body)
            event.actor = redactor.redact_text(event.actor) if event.actor else None
    decoded = decode_all(letters, epoch, stream, decoders)
    return Batch(
        epoch=epoch,
        last_sequence=messages[-1].sequence,
        events=events,
        letter_frame=dead_letter_frame(decoded, redactor, grouping),
        event_frame=case_event_frame(events, redactor),
        last_timestamp_ns=messages[-1].timestamp_ns,
        payloads={message.sequence: message for message in letters} if keeps_payloads else None,
    )


def kept_version(said: object, redactor: Redactor) -> str | None:
    """A consumer's version as stored, from any message: masked and cut as in dead letters."""
    if not isinstance(said, str) or not said:
        return None
    return redactor.redact_label(clean_text(said))[: TEXT_LIMITS["consumer_version"]]


def without(batch: Batch, seen: pl.DataFrame) -> Batch:
    """The batch without messages (`dlq_sequence`, `published_at`) that are already stored."""
    if seen.is_empty():
        return batch
    message = ["dlq_sequence", "published_at"]
    letters = batch.letter_frame.join(seen, on=message, how="anti", maintain_order="left")
    events = batch.event_frame.join(seen, on=message, how="anti", maintain_order="left")
    kept = set(events["dlq_sequence"])
    return replace(
        batch,
        letter_frame=letters,
        events=[event for event in batch.events if event.dlq_sequence in kept],
        event_frame=events,
    )
