"""W3C trace context in the headers of an event: the cause of the event, for tracing."""

import re

from sahool_dlq.deadletter.headers import Headers, value_of

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]{0,200})?\Z")
_TRACESTATE = re.compile(r"[ -~]{1,512}\Z")


def trace_context(headers: Headers, traceparent: str | None = None) -> dict[str, str]:
    """`traceparent`, with `tracestate`, as a message about this event must contain them.

    The argument `traceparent` has precedence over the headers. Empty if they are absent or do not
    follow the standard: anybody may have written them.
    """
    parent = traceparent or value_of(headers, "traceparent") or ""
    state = value_of(headers, "tracestate") or ""
    if not _TRACEPARENT.match(parent):
        return {}
    return {"traceparent": parent} | ({"tracestate": state} if _TRACESTATE.match(state) else {})
