"""A failed event as the keys of a dead letter, whatever its exception or headers are."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sahool_dlq.deadletter import ids
from sahool_dlq.events.attempts import Attempts
from sahool_dlq.events.cause import error_text, stack_trace
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.failure import EVENT_REMOVED, crash_loop, dead_letter_fields, parse_body
from sahool_dlq.events.results import DeadLetter
from sahool_dlq.jetstream.pull import Delivery, delivery_of

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
DELIVERY = Delivery("SAHOOL_EVENTS", "ndvi", 4, 7, 1_772_359_100_000_000_000, 0)


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def fields(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "subject": "sahool.analysis.ndvi_computed",
        "headers": {},
        "body": {"event_id": "e1"},
        "delivery": DELIVERY,
        "config": NATSConsumerConfig(name="ndvi-service", version="1.2", max_retries=3),
        "handler": "Service.handle",
        "attempts": Attempts(NOW - timedelta(minutes=1), 4, 4, 4),
        "verdict": DeadLetter(None, raised(ValueError("boom")), "max_retries_exceeded"),
        "now": NOW,
    }
    return dead_letter_fields(**values | changes)


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_a_failure_says_what_failed_where_and_when() -> None:
    found = fields(headers={"traceparent": "00-1", "X": "y"})
    trace = found.pop("stack_trace")
    assert trace.endswith("ValueError: boom\n")
    assert found == {
        "event_id": "e1",
        "original_subject": "sahool.analysis.ndvi_computed",
        "event_type": "ndvi_computed",
        "source_service": "unknown",
        "tenant_id": None,
        "field_id": None,
        "farmer_id": None,
        "error_message": "boom",
        "error_type": "ValueError",
        "retry_count": 3,
        "max_retries": 3,
        "first_attempt_at": "2026-03-01T09:59:00+00:00",
        "last_attempt_at": "2026-03-01T10:00:00+00:00",
        "dlq_timestamp": "2026-03-01T10:00:00+00:00",
        "dlq_reason": "max_retries_exceeded",
        "original_headers": {"traceparent": "00-1", "X": "y"},
        "original_stream": "SAHOOL_EVENTS",
        "original_sequence": 7,
        "original_timestamp_ns": 1_772_359_100_000_000_000,
        "consumer_name": "ndvi",
        "consumer_service": "ndvi-service",
        "consumer_version": "1.2",
        "handler": "Service.handle",
        "failure_id": ids.failure_id("SAHOOL_EVENTS", 7, DELIVERY.timestamp_ns, "ndvi"),
        "attempts": [],
        "traceparent": "00-1",
    }


def test_the_event_id_comes_from_the_payload_else_the_message_id_else_is_unknown() -> None:
    headers = {"Nats-Msg-Id": "m1"}
    assert fields(headers=headers)["event_id"] == "e1"
    assert fields(headers=headers, body={})["event_id"] == "m1"
    assert fields(body=[1])["event_id"] == "unknown"
    assert fields(body={"event_id": ""})["event_id"] == "unknown"


def test_ids_of_other_types_are_kept_as_text() -> None:
    found = fields(body={"tenant_id": 7, "field_id": ["a"], "farmer_id": False})
    assert (found["tenant_id"], found["field_id"], found["farmer_id"]) == ("7", '["a"]', "false")


@pytest.mark.parametrize(("calls", "retries"), [(0, 0), (1, 0), (3, 2), (4, 3), (50, 3)])
def test_the_retry_count_is_that_of_calls_not_of_deliveries(calls: int, retries: int) -> None:
    delivery = DELIVERY._replace(delivery_count=17)
    attempts = Attempts(NOW, 17, calls)
    assert fields(delivery=delivery, attempts=attempts)["retry_count"] == retries


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (DeadLetter(), "HandlerResult"),
        (DeadLetter(dlq_reason="max_retries_exceeded"), "HandlerResult"),
        (DeadLetter("The field was sold.", dlq_reason="sold"), "HandlerResult"),
        (crash_loop(Attempts(NOW, 12, 9, 2)), "CrashLoop"),
        (crash_loop(Attempts(NOW, 9, 9, 9)), "CrashLoop"),
        (EVENT_REMOVED, "EventRemoved"),
    ],
)
def test_a_failure_without_an_exception_is_explained(verdict: DeadLetter, kind: str) -> None:
    found = fields(verdict=verdict)
    assert (found["error_type"], found["stack_trace"]) == (kind, None)
    assert found["error_message"].endswith(".")
    assert found["dlq_reason"] == verdict.dlq_reason


def test_the_cause_is_the_last_known_one_where_the_last_call_says_nothing() -> None:
    attempts = Attempts(NOW)
    attempts.add(NOW, raised(KeyError("sensor"), ValueError("cause")))
    attempts.add(NOW, None)
    found = fields(verdict=DeadLetter(dlq_reason="max_retries_exceeded"), attempts=attempts)
    assert (found["error_type"], found["error_message"]) == ("KeyError", "'sensor'")
    assert "ValueError: cause" in found["stack_trace"]
    said = fields(verdict=DeadLetter("The sensor is gone."), attempts=attempts)
    assert (said["error_type"], said["error_message"]) == ("HandlerResult", "The sensor is gone.")


def test_a_crash_loop_says_how_many_calls_began_and_never_ended() -> None:
    message = fields(verdict=crash_loop(Attempts(NOW, 12, 9, 2)))["error_message"]
    assert "Its handler was called at least 9 times, and 7 calls never ended" in message


def test_an_event_that_was_removed_says_how_its_last_call_ended() -> None:
    attempts = Attempts(NOW, 1, 1)
    attempts.add(NOW, raised(KeyError("sensor")))
    found = fields(verdict=EVENT_REMOVED, attempts=attempts)
    assert (found["error_type"], found["dlq_reason"]) == ("EventRemoved", "event_removed")
    assert found["error_message"].endswith("Its last call ended with KeyError: 'sensor'")
    assert "KeyError" in found["stack_trace"]


def test_a_handlers_words_are_kept_beside_its_exception() -> None:
    attempts = Attempts(NOW)
    attempts.add(NOW, ValueError("x"), "rate limited\0")
    assert attempts.calls[0]["reason"] == "rate limited\ufffd"


def test_redrive_headers_become_keys() -> None:
    headers = {"Dlq-Redrive-Of": "f", "Dlq-Redrive-Id": "r", "Dlq-Redrive-Attempt": "2"}
    found = fields(headers=headers)
    assert (found["redrive_of"], found["redrive_id"], found["redrive_attempt"]) == ("f", "r", 2)
    assert "redrive_of" not in fields()


@pytest.mark.parametrize("attempt", ["", "two", "²", "٣", "-1", "1.0", "9" * 5_000, "2\n"])
def test_a_redrive_header_that_is_no_number_can_not_keep_the_dead_letter_back(attempt: str) -> None:
    found = fields(headers={"Dlq-Redrive-Of": "f", "Dlq-Redrive-Attempt": attempt})
    assert found["redrive_attempt"] is None


def test_a_trace_tells_the_whole_chain() -> None:
    trace = stack_trace(raised(ValueError("outer"), raised(KeyError("inner"))))
    inner, outer = trace.index("KeyError: 'inner'"), trace.index("ValueError: outer")
    assert inner < trace.index("The above exception was the direct cause") < outer


def test_a_trace_tells_what_was_being_handled() -> None:
    with pytest.raises(ValueError, match="outer") as caught:  # noqa: PT012  (the inner error is raised while the outer one is handled)
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904  (the implicit chain is what is tested)
    assert "During handling of the above exception" in stack_trace(caught.value)


def test_a_trace_tells_every_member_of_a_group() -> None:
    group = ExceptionGroup("several", [raised(ValueError("one")), raised(KeyError("two"))])
    trace = stack_trace(raised(group))
    assert "ValueError: one" in trace
    assert "KeyError: 'two'" in trace


def test_a_long_trace_keeps_its_beginning_and_end_and_says_what_was_cut() -> None:
    trace = stack_trace(raised(ValueError("x" * 200_000), raised(KeyError("first"))))
    assert "KeyError: 'first'" in trace[:32_000]
    assert trace.endswith("xxx\n")
    assert len(trace) < 64_100
    cut = int(trace.split("… ")[1].split(" characters cut")[0])
    whole = len(stack_trace(raised(ValueError(""), raised(KeyError("first"))))) + 200_000
    assert abs(cut - (whole - 64_000)) < 10


def test_endless_recursion_is_told_briefly() -> None:
    def endless() -> None:
        endless()

    with pytest.raises(RecursionError) as caught:
        endless()
    assert len(stack_trace(caught.value)) < 5_000


def test_an_exception_whose_text_can_not_be_read_is_dead_lettered_all_the_same() -> None:
    found = fields(verdict=DeadLetter(error=raised(WordlessError())))
    assert found["error_type"] == "WordlessError"
    assert found["error_message"] == "(its text cannot be read: RuntimeError)"
    assert "WordlessError" in found["stack_trace"]
    attempts = Attempts(NOW)
    attempts.add(NOW, WordlessError())
    assert attempts.calls[0]["error_type"] == "WordlessError"


def test_texts_are_storable_whatever_the_exception_says() -> None:
    error = raised(ValueError("a\0b" + b"\xff".decode(errors="surrogateescape")))
    found = fields(verdict=DeadLetter(error=error))
    assert error_text(error) == found["error_message"] == "a\ufffdb\ufffd"
    json.dumps(found, ensure_ascii=False).encode()
    assert "\0" not in found["stack_trace"]


def test_the_last_ten_attempts_are_remembered_and_cut() -> None:
    attempts = Attempts(NOW)
    for number in range(15):
        attempts.add(NOW + timedelta(seconds=number), ValueError(f"{number} " + "x" * 5_000))
    attempts.add(NOW, None)
    assert len(attempts.calls) == 10
    assert attempts.calls[0]["error_message"].startswith("6 ")
    assert len(attempts.calls[0]["error_message"]) == 2_000
    assert attempts.calls[-1] == {"at": NOW.isoformat(), "error_type": "", "error_message": ""}


def test_what_waits_for_its_retry_holds_no_long_texts() -> None:
    attempts = Attempts(NOW)
    attempts.add(NOW, ValueError("x" * 1_000_000))
    assert attempts.cause is not None
    assert len(attempts.cause.error_message) < 17_000
    assert "characters cut" in attempts.cause.error_message
    assert len(attempts.cause.stack_trace or "") < 17_000


@pytest.mark.parametrize(
    ("body", "parsed"),
    [
        (b'{"a": 1}', (True, {"a": 1})),
        (b" null ", (True, None)),
        (b"", (False, None)),
        (b'"\xff"', (False, None)),
        (b"[NaN]", (False, ["NaN"])),
        (b'"\\ud800"', (False, "\ufffd")),
        (b"\xef\xbb\xbf1", (False, 1)),
        ('{"a": "é"}'.encode("utf-16"), (False, {"a": "é"})),
        (gzip.compress(b'{"a": 1}', mtime=0), (False, {"a": 1})),
        (gzip.compress(b'{"a": 1}', mtime=0)[:-4], (False, None)),
        (b"[" * 100_000, (False, None)),
    ],
)
def test_only_strict_json_in_utf8_is_json_and_more_is_read(
    body: bytes, parsed: tuple[bool, Any]
) -> None:
    assert parse_body(body) == parsed


class _Msg:
    def __init__(self, reply: str) -> None:
        self.reply = reply


@pytest.mark.parametrize(
    "around", [("$JS.ACK", ""), ("$JS.ACK._.ACCHASH", ""), ("$JS.ACK.hub.ACCHASH", ".rand0m")]
)
def test_a_delivery_is_read_from_each_form_of_the_reply(around: tuple[str, str]) -> None:
    head, tail = around
    reply = f"{head}.SAHOOL_EVENTS.ndvi.4.7.9.1772359100000000000.0{tail}"
    assert delivery_of(_Msg(reply)) == DELIVERY
