"""Dead letters of other software, read by their profiles: each built-in one with a message of the
form that its software writes, and messages that are wrong.
"""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.envelope.encode import encode_dead_letter
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.imports.profile import BUILT_IN, Profile, profile_named
from sahool_dlq.deadletter.imports.reading import ForeignLetter, ForeignMessage, read_letter
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.rules import read_rules

AT = datetime(2026, 10, 8, 6, 26, 2, tzinfo=UTC)
NS = int(AT.timestamp()) * 10**9
BODY = b'{"invoiceId": 42, "price": 1.10}'


def read(
    profile: str | Profile, data: bytes = BODY, subject: str = "dlq.x", **headers: str
) -> ForeignLetter:
    named = profile_named(profile) if isinstance(profile, str) else profile
    return read_letter(named, ForeignMessage("DLQ", subject, 7, NS, headers, data))


def own(**parts: Any) -> Profile:
    return Profile("own", **parts)


def test_nestjs_jetstream():
    letter = read(
        "nestjs-jetstream",
        **{
            "x-subject": "billing__microservice.ev.invoice.generate",
            "x-caller-name": "billing__microservice",
            "x-dead-letter-reason": "PDF service unavailable",
            "x-original-subject": "billing__microservice.ev.invoice.generate",
            "x-original-stream": "billing__microservice_ev-stream",
            "x-failed-at": "2026-10-08T06:26:00.773Z",  # as version 2.13 wrote it
            "x-delivery-count": "3",
        },
    )
    assert letter.texts["original_subject"] == "billing__microservice.ev.invoice.generate"
    assert letter.texts["original_stream"] == "billing__microservice_ev-stream"
    assert letter.texts["error_message"] == "PDF service unavailable"
    assert (letter.deliveries, letter.body, letter.problem) == (3, BODY, None)
    assert letter.failed_at == datetime(2026, 10, 8, 6, 26, 0, 773_000, UTC)
    assert set(letter.headers) == {"x-subject", "x-caller-name"}


def test_watermill_with_metadata_in_headers_and_in_json():
    said = {
        "topic_poisoned": "orders.created",
        "reason_poisoned": "dial tcp 10.0.0.1:5432: connect: connection refused",
        "handler_poisoned": "orders-handler",
        "subscriber_poisoned": "jetstream.Subscriber",
    }
    letter = read("watermill", **said, _watermill_message_uuid="u1", tenant="acme")
    whole = {"UUID": "u1", "Metadata": said, "Payload": base64.b64encode(BODY).decode()}
    same = read("watermill-json", json.dumps(whole).encode())
    for each in (letter, same):
        assert each.texts == {
            "original_subject": "orders.created",
            "error_message": said["reason_poisoned"],
            "handler": "orders-handler",
            "event_id": "u1",
        }
        assert (each.body, each.problem, each.failed_at) == (BODY, None, AT)
    assert letter.headers == {"tenant": "acme", "subscriber_poisoned": "jetstream.Subscriber"}


def test_dapr():
    event = {
        "id": "5929aaac",
        "source": "checkout",
        "specversion": "1.0",
        "type": "com.dapr.event.sent",
        "topic": "orders",
        "pubsubname": "jetstream",
        "datacontenttype": "application/json",
        "data": {"orderId": 7, "tenant_id": "acme"},
    }
    body = json.dumps(event).encode()
    letter = read("dapr", body)
    assert letter.texts == {
        "original_subject": "orders",
        "event_id": "5929aaac",
        "source_service": "checkout",
    }
    assert (letter.body, letter.ids["tenant_id"], letter.problem) == (body, "acme", None)


def test_kafka_connect():
    prefix = "__connect.errors."
    said = {
        "topic": "orders",
        "partition": "0",
        "offset": "5",
        "connector.name": "jdbc-sink",
        "task.id": "0",
        "stage": "VALUE_CONVERTER",
        "class.name": "org.apache.kafka.connect.json.JsonConverter",
        "exception.class.name": "org.apache.kafka.connect.errors.DataException",
        "exception.message": "Converting byte[] to Kafka Connect data failed",
        "exception.stacktrace": "org.apache.DataException: no\n\tat a.B.c(B.java:1)",
    }
    letter = read("kafka-connect", **{prefix + name: text for name, text in said.items()})
    assert letter.texts == {
        "original_subject": "orders",
        "service": "jdbc-sink",
        "handler": said["class.name"],
        "error_type": said["exception.class.name"],
        "error_message": said["exception.message"],
        "stack_trace": said["exception.stacktrace"],
    }
    assert {"__connect.errors.partition", "__connect.errors.offset"} <= set(letter.headers)


def test_spring_takes_the_cause_rather_than_its_wrapper():
    said = {
        "kafka_dlt-exception-fqcn": "org.springframework.kafka.listener.ListenerExecutionFailed",
        "kafka_dlt-exception-cause-fqcn": "java.lang.IllegalStateException",
        "kafka_dlt-exception-message": "Listener threw exception; no price",
        "kafka_dlt-exception-stacktrace": "java.lang.IllegalStateException: no\n\tat a.B.c(B:1)",
        "kafka_dlt-original-topic": "orders.created",
        "kafka_dlt-original-partition": "\x00\x00\x00\x01",
        "kafka_dlt-original-consumer-group": "pricing",
    }
    letter = read("spring", **said)
    assert letter.texts["error_type"] == "java.lang.IllegalStateException"
    assert letter.texts["service"] == "pricing"
    assert letter.texts["original_subject"] == "orders.created"
    cloud = read(
        "spring",
        **{
            "x-exception-fqcn": "java.lang.IllegalArgumentException",
            "x-exception-message": "Negative amount",
            "x-original-topic": "orders",
        },
    )
    assert cloud.texts == {
        "error_type": "java.lang.IllegalArgumentException",
        "error_message": "Negative amount",
        "original_subject": "orders",
    }


def test_cloud_events_in_headers_and_as_json():
    error = {
        "knativeerrordest": "http://pricing.default.svc.cluster.local",
        "knativeerrorcode": "503",
        "knativeerrordata": base64.b64encode(b"nope\n").decode(),
    }
    event = {"id": "order-1", "source": "/shop", "type": "order.created", "specversion": "1.0"}
    binary = read(
        "cloudevents", **{f"ce-{name}": text for name, text in {**event, **error}.items()}
    )
    structured = read("cloudevents", json.dumps({**event, **error, "data": {"a": 1}}).encode())
    for letter in (binary, structured):
        assert letter.texts == {
            "error_type": "503",
            "error_message": "nope\n",
            "service": error["knativeerrordest"],
            "event_id": "order-1",
            "event_type": "order.created",
            "source_service": "/shop",
        }
        assert letter.problem is None
    assert binary.body == BODY


def test_plain_is_subject_and_body():
    letter = read("plain", b"\x00\xff", Trace="t")
    assert (letter.texts, letter.body, letter.headers) == ({}, b"\x00\xff", {"Trace": "t"})
    assert (letter.problem, letter.deliveries, letter.failed_at) == (None, None, AT)
    [rule] = read_rules(
        """
        [[profile]]
        name = "old"
        like = "plain"
        stream = "DLQ"
        subject = "dlq.{subject}.failed"
        values.service = "old-shop"
        """
    ).profile
    whole = profile_named("old", [rule])
    letter = read(whole, subject="dlq.orders.created.failed")
    assert letter.texts == {"original_subject": "orders.created", "service": "old-shop"}
    assert read(whole, subject="dlq.failed").texts == {"service": "old-shop"}


def test_an_own_profile_changes_a_built_in_one_and_keeps_the_rest():
    rules = read_rules(
        """
        [[profile]]
        name = "orders"
        like = "watermill"
        stream = "POISON"
        subjects = ["b.>", "a.>"]
        headers.error_message = ["x-why", "reason_poisoned"]
        """
    )
    whole = profile_named("orders", rules.profile)
    assert whole.filters == ("a.>", "b.>")
    letter = read(whole, topic_poisoned="t", reason_poisoned="no")
    assert letter.texts == {"original_subject": "t", "error_message": "no"}
    assert read(whole, **{"x-why": "y", "reason_poisoned": "no"}).texts["error_message"] == "y"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('name = "a"\nlike = "none"', "a: there is no profile 'none'; there are nestjs-jetstream,"),
        ('name = "a"\nsubject = "dlq.orders"', "a: subject must contain {subject} once"),
        ('name = "a"\nheaders.reason = "x"', "Invalid enum value 'reason'"),
        ('like = "plain"', "missing required field `name`"),
        ('name = "a"\ndata_encoding = "hex"', "Invalid enum value 'hex'"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_in_one_sentence(toml: str, words: str):
    with pytest.raises(ValueError, match=r"\w") as refused:
        read_rules(f"[[profile]]\n{toml}")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("parts", "data", "headers", "problem"),
    [
        ({"headers": {"deliveries": "N"}}, b"", {"N": "many"}, "its deliveries is not a number"),
        ({"headers": {"deliveries": "N"}}, b"", {"N": "-1"}, "its deliveries is not a number"),
        ({"headers": {"original_sequence": "N"}}, b"", {"N": "9" * 19}, "its original_sequence is"),
        ({"headers": {"failed_at": "T"}}, b"", {"T": "yesterday"}, "its failed_at is not a time"),
        (
            {"headers": {"failed_at": "T"}},
            b"",
            {"T": "9999999999999"},
            "its failed_at is not a time",
        ),
        ({"headers": {"error_message": "E"}}, b"", {"F": "x"}, "it has nothing that the profile"),
        ({"body": {"error_message": "e"}}, b"\xff", {}, "its body is not JSON: "),
        ({"body": {"error_message": "e"}}, b"[1]", {}, "its body is an array, not a JSON object"),
        ({"data": "d"}, b"{}", {}, "it has no d, where its event should be"),
        (
            {"data": "d", "data_encoding": "text"},
            b'{"d": 1}',
            {},
            "its d is a number, not a string",
        ),
        ({"data": "d", "data_encoding": "base64"}, b'{"d": "?"}', {}, "its d is not base64"),
        ({"data_headers": "h"}, b'{"h": []}', {}, "its h is an array, not an object"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_lost(
    parts: Any, data: bytes, headers: dict[str, str], problem: str
):
    letter = read(own(**parts), data, **headers)
    assert letter.problem is not None
    assert letter.problem.startswith(problem)
    assert ";" not in letter.problem
    assert letter.body == data
    assert letter.failed_at == AT


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1759904760", datetime(2025, 10, 8, 6, 26, tzinfo=UTC)),
        ("1759904760773", datetime(2025, 10, 8, 6, 26, 0, 773_000, UTC)),
        ("1759904760773000000", datetime(2025, 10, 8, 6, 26, 0, 773_000, UTC)),
        ("2025-10-08T08:26:00+02:00", datetime(2025, 10, 8, 6, 26, tzinfo=UTC)),
    ],
)
def test_times_are_iso_or_numbers_since_1970(text: str, time: datetime):
    assert read(own(headers={"failed_at": "T"}), T=text).failed_at == time


def test_a_body_inside_the_message_keeps_its_spelling():
    data = (
        b'{"meta": {"why": "no"}, "event": {"body" : {"price": 1.10, "n": 12345678901234567890}}}'
    )
    profile = own(body={"error_message": "meta.why"}, data="event.body")
    letter = read(profile, data)
    assert letter.body == b'{"price": 1.10, "n": 12345678901234567890}'
    assert (letter.texts, letter.problem) == ({"error_message": "no"}, None)


def imported(subject: str, **changes: Any) -> LogMessage:
    """A dead letter in the log, as the importer writes it."""
    times = dict.fromkeys(("first_attempt_at", "last_attempt_at", "dlq_timestamp"), AT.isoformat())
    fields = {
        "event_id": "e",
        "event_type": "x",
        "original_subject": "x",
        "source_service": "unknown",
        "error_type": "unknown",
        "error_message": "no",
        "retry_count": 0,
        "max_retries": 0,
        "dlq_reason": "imported",
        "original_headers": {},
        "imported_from": f"DLQ/7/{NS}",
        **times,
        **changes,
    }
    return LogMessage(subject, 3, NS, encode_dead_letter(fields, b"{}", is_json=True))


def test_the_id_of_an_imported_letter_is_that_of_its_place_or_of_its_event():
    subject = "sahool.dlq.imported.DLQ.x"
    place = f"DLQ/7/{NS}"
    letter = decode(imported(subject), "e", "LOG")
    assert (letter.failure_id, letter.imported_from) == (ids.imported_id(place), place)
    origin = ("S", 4, NS - 1, "c")
    claimed = dict(zip(("original_stream", "original_sequence"), origin[:2], strict=True))
    claimed |= {"original_timestamp_ns": origin[2], "consumer_name": origin[3]}
    event = imported(subject, failure_id=ids.failure_id(*origin), **claimed)
    assert decode(event, "e", "LOG").failure_id == ids.failure_id(*origin)
    forged = imported(subject, failure_id=ids.failure_id("S", 5, NS, "c"), **claimed)
    assert decode(forged, "e", "LOG").failure_id == ids.imported_id(place)
    read = decode_all([imported(subject), event, forged], "e", "LOG")
    assert read["imported_from"].to_list() == [place] * 3
    assert read["failure_id"].to_list() == [
        decode(each, "e", "LOG").failure_id for each in (imported(subject), event, forged)
    ]


@pytest.mark.parametrize("subject", ["sahool.dlq.x", "sahool.dlq.DLQ.x", "sahool.dlq.imported.x"])
def test_elsewhere_in_the_log_nobody_can_claim_an_import(subject: str):
    letter = decode(imported(subject, import_error="made up"), "e", "LOG")
    assert letter.imported_from is None
    assert letter.failure_id == ids.dead_letter_id("LOG", 3, NS)
    assert "made up" not in (letter.parse_error or "")


def test_what_the_importer_could_not_read_is_the_parse_error():
    message = imported("sahool.dlq.imported.DLQ.x", import_error="it has nothing")
    assert decode(message, "e", "LOG").parse_error == "it has nothing"


def test_every_built_in_profile_has_a_test_here():
    tested = {
        *("nestjs-jetstream", "watermill", "watermill-json", "dapr", "kafka-connect", "spring"),
        *("cloudevents", "plain"),
    }
    assert set(BUILT_IN) == tested
