"""`decode`: every envelope is read completely, and claims without proof are not believed."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope import tolerant as reading
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.message import LogMessage
from support.letters import (
    METADATA,
    OLD,
    ORIGIN,
    OWN_ID,
    PUBLISHED_AT,
    PUBLISHED_NS,
    SEQUENCE,
    STREAM,
    assert_storable,
    message,
    ours,
    read,
    second,
)

# The envelopes


def test_an_older_services_dead_letter_is_read_whole() -> None:
    letter = read(OLD)
    texts = {key: value for key, value in OLD.items() if isinstance(value, str) and key in TEXTS}
    assert {key: getattr(letter, key) for key in texts} == texts
    assert (letter.farmer_id, letter.stack_trace) == (None, None)
    assert (letter.retry_count, letter.max_retries) == (3, 3)
    assert json.loads(letter.original_data) == OLD["original_data"]
    assert json.loads(letter.original_headers) == OLD["original_headers"]
    assert letter.service == "satellite"
    assert letter.consumer_service is None
    assert (letter.envelope, letter.payload_encoding) == ("canonical", "json")
    assert (letter.parse_error, letter.clamped) == (None, None)


TEXTS = {
    *("event_id", "original_subject", "event_type", "source_service", "tenant_id", "field_id"),
    *("error_message", "error_type", "dlq_reason"),
}


def test_the_place_in_the_log_is_the_servers() -> None:
    letter = read(OLD)
    assert letter.dlq_sequence == SEQUENCE
    assert letter.published_at == PUBLISHED_AT
    assert letter.subject == "sahool.dlq.ndvi_computed"
    assert letter.size_bytes == len(json.dumps(OLD).encode())


def test_times_with_z_offset_or_neither_are_utc() -> None:
    letter = read(OLD)
    assert letter.first_attempt_at == datetime(2026, 3, 1, 9, 59, tzinfo=UTC)
    assert letter.last_attempt_at == datetime(2026, 3, 1, 9, 59, 30, tzinfo=UTC)
    assert letter.dlq_timestamp == datetime(2026, 3, 1, 9, 59, 40, 500_000, tzinfo=UTC)


def test_our_dead_letter_says_which_consumer_failed() -> None:
    letter = read(ours())
    assert letter.failure_id == ids.failure_id(*ORIGIN)
    assert (letter.original_stream, letter.original_sequence) == ORIGIN[:2]
    assert letter.original_published_at == datetime(2026, 3, 1, 9, 58, 20, tzinfo=UTC)
    assert (letter.consumer_name, letter.handler) == ("ndvi", "handle")
    assert (letter.service, letter.source_service) == ("ndvi-service", "satellite")
    assert json.loads(letter.attempts or "") == ours()["attempts"]
    assert (letter.parse_error, letter.clamped, letter.root_failure_id) == (None, None, None)


@pytest.mark.parametrize("body", [OLD, ours(), ours(attempts=None), ours(attempts=[])])
def test_a_canonical_dead_letter_takes_the_fast_path(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "parse_json", lambda *_: pytest.fail("the slow path"))
    assert read(body).parse_error is None


@pytest.mark.parametrize(
    "data", ['{"b": 1.10, "a": [1e5, "\\u0645\\ud83d\\ude00"]}', "1.50", '"x"', "null", "[ ]"]
)
def test_the_original_data_keep_their_spelling(data: str) -> None:
    body = json.dumps(ours()).replace(json.dumps(OLD["original_data"]), data)
    letter = read(body.encode())
    assert letter.original_data == data
    assert letter.parse_error is None


def test_unknown_keys_are_no_problem() -> None:
    assert read(ours(added_next_year={"a": [1]})).parse_error is None


@pytest.mark.parametrize("encoding", ["base64", "object"])
def test_the_payload_encoding_is_kept(encoding: str) -> None:
    letter = read(ours(payload_encoding=encoding, original_data={encoding: "eA=="}))
    assert letter.payload_encoding == encoding
    assert letter.parse_error is None


def test_the_second_envelope_is_read_whole() -> None:
    letter = read(second(), "sahool.dlq.field.created")
    assert letter.envelope == "metadata"
    assert letter.parse_error is None
    assert letter.event_id == "e2"
    assert letter.event_type == "field.created"
    assert letter.original_subject == "sahool.field.created"
    assert (letter.error_type, letter.error_message) == ("KeyError", "no such field")
    assert letter.stack_trace == "Traceback …"
    assert letter.retry_count == 2
    assert (letter.service, letter.consumer_version) == ("billing", "1.2")
    assert letter.handler == "on_field"
    assert letter.first_attempt_at == datetime(2026, 3, 1, 9, 58, tzinfo=UTC)
    assert letter.last_attempt_at == datetime(2026, 3, 1, 9, 59, 40, tzinfo=UTC)
    assert json.loads(letter.original_data) == {"field_id": "f9", "tenant_id": "t9"}
    assert (letter.tenant_id, letter.field_id, letter.farmer_id) == ("t9", "f9", None)
    assert json.loads(letter.attempts or "") == [
        {"at": "2026-03-01T09:58:00", "error_message": "first"},
        {"at": "2026-03-01T09:59:00", "error_message": "second"},
    ]
    assert letter.failure_id == OWN_ID


@pytest.mark.parametrize(
    ("original", "says"),
    [
        ("plain text", "original_message is not JSON"),
        ({"a": 1}, "original_message is an object"),
        ('{"a": NaN}', "original_message holds NaN"),
        ("[" * 5000, "original_message is not JSON"),
        (None, "original_message is null"),
    ],
)
def test_a_second_envelope_around_something_odd_says_so(original: Any, says: str) -> None:
    letter = read(second(original))
    assert letter.envelope == "metadata"
    assert letter.error_type == "KeyError"
    assert says in (letter.parse_error or "")
    assert_storable(letter)


@pytest.mark.parametrize(
    "changes",
    [
        {"retry_timestamps": [{"a": 1}], "retry_errors": [float("nan")]},
        {"failure_timestamp": 17},
        {"retry_count": "many"},
        {"failure_reason": ["a", {"b": None}]},
        {"original_event_id": "\ud800"},
    ],
)
def test_a_second_envelope_with_odd_metadata_says_so(changes: dict[str, Any]) -> None:
    letter = read(second(**changes))
    assert letter.envelope == "metadata"
    assert letter.parse_error
    assert_storable(letter)


def test_a_second_envelope_without_a_reason_says_so() -> None:
    metadata = {key: value for key, value in METADATA.items() if key != "failure_reason"}
    body = json.dumps({"metadata": metadata, "original_message": "{}"}).encode()
    assert read(body).parse_error == "missing failure_reason"


# Identity


def test_a_failure_id_is_trusted_where_recomputing_gives_it() -> None:
    assert read(ours()).failure_id == ids.failure_id(*ORIGIN)


@pytest.mark.parametrize(
    "forged",
    [
        {"original_sequence": 8},
        {"original_stream": "OTHER"},
        {"original_timestamp_ns": ORIGIN[2] + 1},
        {"consumer_name": "other"},
        {"consumer_name": None},
        {"original_stream": None},
        {"original_sequence": "7"},
        {"failure_id": ids.failure_id("SAHOOL_EVENTS", 8, ORIGIN[2], "ndvi")},
        {"failure_id": ids.failure_id(*ORIGIN).upper()},
        {"failure_id": ""},
        {"failure_id": None},
        {"failure_id": {"a": 1}},
    ],
)
def test_a_failure_id_that_recomputing_does_not_give_is_not_trusted(forged: dict[str, Any]) -> None:
    letter = read(ours(**forged))
    if forged.get("original_sequence") == "7":  # says the same, in the wrong type
        assert letter.failure_id == ids.failure_id(*ORIGIN)
    else:
        assert letter.failure_id == OWN_ID


def test_forged_letters_collide_neither_with_the_real_one_nor_with_each_other() -> None:
    real = decode(message(ours(), sequence=1), "e", STREAM)
    forged = [
        decode(message(ours(original_sequence=99, event_id="forged"), sequence=n), "e", STREAM)
        for n in (2, 3)
    ]
    assert len({real.failure_id, *(letter.failure_id for letter in forged)}) == 3


def test_a_repeat_has_the_same_id_and_an_older_services_letter_never_one() -> None:
    ours_twice = {decode(message(ours(), sequence=n), "e", STREAM).failure_id for n in (1, 2)}
    old_twice = {decode(message(OLD, sequence=n), "e", STREAM).failure_id for n in (1, 2)}
    assert (len(ours_twice), len(old_twice)) == (1, 2)


def test_the_id_of_a_letter_without_proof_depends_on_the_servers_time() -> None:
    later = LogMessage("sahool.dlq.x", SEQUENCE, PUBLISHED_NS + 1, b"{}")
    assert decode(later, "e", STREAM).failure_id != read(b"{}").failure_id


# Redrives that failed again

ROOT = ids.failure_id("SAHOOL_EVENTS", 1, 1, "ndvi")


def redriven(attempt: Any = 2, **changes: Any) -> dict[str, Any]:
    keys = {"redrive_of": ROOT, "redrive_id": ids.redrive_id(ROOT, 2), "redrive_attempt": attempt}
    return ours(**(keys | changes))


def test_a_redrive_that_failed_again_names_its_root() -> None:
    letter = read(redriven())
    assert letter.root_failure_id == ROOT
    assert (letter.redrive_id, letter.redrive_attempt) == (ids.redrive_id(ROOT, 2), 2)
    assert letter.failure_id == ids.failure_id(*ORIGIN)
    assert letter.parse_error is None


def test_an_older_service_keeps_the_redrive_keys_in_its_headers() -> None:
    headers = {
        "Dlq-Redrive-Of": ROOT,
        "Dlq-Redrive-Id": ids.redrive_id(ROOT, 2),
        "Dlq-Redrive-Attempt": "2",
    }
    letter = read(OLD | {"original_headers": headers})
    assert (letter.root_failure_id, letter.redrive_attempt) == (ROOT, 2)
    assert letter.parse_error is None


@pytest.mark.parametrize(
    "changes",
    [
        {"redrive_of": "not a uuid"},
        {"redrive_of": ROOT.upper()},
        {"redrive_id": ids.redrive_id(ROOT, 3)},
        {"redrive_id": None},
        {"redrive_attempt": None},
        {"redrive_attempt": 1},
        {"redrive_attempt": 0, "redrive_id": ids.redrive_id(ROOT, 0)},
        {"redrive_attempt": -1, "redrive_id": ids.redrive_id(ROOT, -1)},
        {"redrive_attempt": 2**31, "redrive_id": ids.redrive_id(ROOT, 2**31)},
        {"redrive_attempt": "²", "redrive_id": ids.redrive_id(ROOT, 2)},
    ],
)
def test_redrive_keys_that_contradict_each_other_are_not_believed(changes: dict[str, Any]) -> None:
    letter = read(redriven(**changes))
    assert letter.root_failure_id is None
    assert (letter.redrive_id, letter.redrive_attempt) == (None, None)
    assert "its redrive keys contradict each other" in (letter.parse_error or "")


def test_a_failure_is_not_its_own_root() -> None:
    own = ids.failure_id(*ORIGIN)
    letter = read(redriven(redrive_of=own, redrive_id=ids.redrive_id(own, 2)))
    assert letter.failure_id == own
    assert letter.root_failure_id is None


def test_a_clock_that_is_ahead_counts_as_the_servers_time() -> None:
    near, far = "2026-03-01T10:01:00Z", "2026-03-01T10:01:01Z"
    changes = {"first_attempt_at": near, "last_attempt_at": far, "dlq_timestamp": "2106-02-07"}
    row = read({**OLD, **changes})
    assert row.first_attempt_at == datetime(2026, 3, 1, 10, 1, tzinfo=UTC)
    assert (row.last_attempt_at, row.dlq_timestamp) == (PUBLISHED_AT, PUBLISHED_AT)
    assert row.clamped == "last_attempt_at,dlq_timestamp"
    assert row.parse_error == (
        f"last_attempt_at is ahead of the server's time: {far}; "
        "dlq_timestamp is ahead of the server's time: 2106-02-07"
    )


TOKEN = ids.redrive_id("at random", 7)


def test_the_log_knows_a_redrive_by_its_token_where_the_event_had_one() -> None:
    headers = {"Dlq-Redrive-Token": TOKEN}
    assert read(redriven(original_headers=headers)).redrive_id == TOKEN
    assert read(redriven(original_headers={"Dlq-Redrive-Token": "x"})).redrive_id != "x"
    assert read(ours(original_headers=headers)).redrive_id is None


def test_the_subject_of_a_service_says_who_failed() -> None:
    said = redriven(consumer_service="a b")
    subject = "sahool.dlq.{}.ndvi_computed"
    own, other = (message(said)._replace(subject=subject.format(name)) for name in ("a_b", "other"))
    letter = decode(own, "e", STREAM)
    assert (letter.service, letter.root_failure_id, letter.parse_error) == ("a b", ROOT, None)
    letter = decode(other, "e", STREAM)
    assert (letter.service, letter.event_type) == ("other", said["event_type"])
    assert letter.root_failure_id is None
    assert letter.parse_error == "it came on the subject of other, and says it is of a b"
    plain = message(ours(consumer_service="a b"))._replace(subject=subject.format("other"))
    assert decode_all([plain], "e", STREAM)["service"].to_list() == ["other"]
