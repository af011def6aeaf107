"""Any message becomes one row for both sinks, the same by column and one by one."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.record import JSON_COLUMNS
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.rows import LETTER_SCHEMA, frame_of
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.drain.batch import build_batch
from support import wild
from support.letters import PUBLISHED_NS, STREAM

REDACTOR, KEYED = Redactor(), Redactor(key=b"key")
SUBJECTS = ("sahool.dlq.x", "sahool.triage.resolved", "sahool.triage.no.such", "sahool.redrive.x")
SECRETS = ("ali@example.com", "4111 1111 1111 1111", "password=x")  # of wild.STRINGS
NEVER_MASKED = ("tenant_id", "field_id", "farmer_id")  # by default: analyses need them
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|(-?[0-9][0-9.eE+-]*)', re.DOTALL)


def log(bodies: Sequence[tuple[str, bytes]]) -> list[LogMessage]:
    return [LogMessage(s, n, PUBLISHED_NS + n, body) for n, (s, body) in enumerate(bodies, 5)]


@settings(max_examples=40, deadline=None)
@given(st.lists(wild.LETTERS, max_size=4))
def test_by_column_and_one_by_one_is_the_same(bodies: list[bytes]) -> None:
    messages = log([("sahool.dlq.x", body) for body in bodies])
    one_by_one = frame_of([decode(m, "e", STREAM) for m in messages], LETTER_SCHEMA)
    assert_frame_equal(decode_all(messages, "e", STREAM), one_by_one)


MESSAGES = st.tuples(st.just(SUBJECTS[0]), wild.LETTERS) | st.tuples(
    st.sampled_from(SUBJECTS), wild.CASE_EVENTS
)


@settings(max_examples=40, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=4), st.sampled_from([REDACTOR, KEYED]))
def test_each_message_is_one_row_that_both_sinks_take_without_its_secrets(
    bodies: list[tuple[str, bytes]], redactor: Redactor
) -> None:
    messages = log(bodies)
    batch = build_batch(messages, epoch="e", stream=STREAM, subjects=Subjects(), redactor=redactor)
    frames = batch.letter_frame, batch.event_frame
    sequences = [sequence for frame in frames for sequence in frame["dlq_sequence"]]
    assert sorted(sequences) == [message.sequence for message in messages]
    for frame in frames:
        for column in frame:
            check_column(column)


def check_column(column: pl.Series) -> None:
    """Check that PostgreSQL and Parquet can store it, and that it has no secret."""
    values = column.drop_nulls()
    if column.dtype == pl.String:
        assert not any("\0" in text for text in values)
    if column.dtype == pl.String and column.name not in NEVER_MASKED:
        assert not any(secret in text for text in values for secret in SECRETS), values.to_list()
    if column.name in JSON_COLUMNS:
        for text in values:
            json.loads(text, parse_constant=lambda word: json.loads(word))  # NaN is no JSON
    if isinstance(column.dtype, pl.Datetime):
        assert all(EARLIEST <= time <= LATEST for time in values)


def numbers(document: bytes) -> list[bytes]:
    """The numbers of a JSON text as written, without those in strings."""
    return [match[1] for match in NUMBER.finditer(document) if match[1]]


_STRICT_NUMBERS = wild.NUMBERS.filter(lambda number: number[-1:] not in b"Ny")
_SECRETS = st.sampled_from(
    [b'"ali@example.com"', b'"4111 1111 1111 1111"', b'"password=x"', b'"Bearer abcdefghijklmnop"']
)


@settings(max_examples=80, deadline=None)
@given(wild.documents(_STRICT_NUMBERS | _SECRETS, wild.HARMLESS_KEYS))
def test_redaction_leaves_every_number_as_it_is_spelt(document: bytes) -> None:
    redacted = REDACTOR.redact_json(document.decode())
    assert numbers(redacted.encode()) == numbers(document)
    assert "ali@example.com" not in redacted
    assert "4111 1111" not in redacted
    frame = pl.DataFrame({"original_data": [document.decode()]})
    assert REDACTOR.redact_frame(frame)["original_data"].item() == redacted


def test_the_numbers_of_a_document_are_found() -> None:
    found: list[Any] = numbers(rb'{"a\"1": [1.10, -2e5, "3"], "b": 4}')
    assert found == [b"1.10", b"-2e5", b"4"]
