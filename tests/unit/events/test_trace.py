"""The W3C trace context in an event's headers."""

import pytest

from sahool_dlq.events.trace_context import trace_context

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_both_headers_are_carried_on_however_they_are_spelt() -> None:
    headers = {"Traceparent": PARENT, "TraceState": "a=1", "other": "x"}
    assert trace_context(headers) == {"traceparent": PARENT, "tracestate": "a=1"}
    assert trace_context({"traceparent": PARENT}) == {"traceparent": PARENT}


@pytest.mark.parametrize(
    "parent", ["", "00-abc-def-01", PARENT.upper(), PARENT + "\n", PARENT + "x" * 9_000, "ä"]
)
def test_what_is_no_trace_is_not_carried_on(parent: str) -> None:
    assert trace_context({"traceparent": parent, "tracestate": "a=1"}) == {}


@pytest.mark.parametrize("state", ["", "a=\r\nStatus: 503", "a=ä", "x" * 513])
def test_a_state_that_no_header_can_hold_is_left_out(state: str) -> None:
    assert trace_context({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}
