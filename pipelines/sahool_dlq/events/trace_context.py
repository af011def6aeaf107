"""W3C trace context in the headers of an event: who caused it, for those who trace."""

import re

from sahool_dlq.deadletter.headers import Headers, value_of

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]{0,200})?\Z")
_TRACESTATE = re.compile(r"[ -~]{1,512}\Z")


def trace_context(headers: Headers, traceparent: str | None = None) -> dict[str, str]:
    """`traceparent`, and with it `tracestate`, as a message about this event carries them on.

    `traceparent` counts more than that of the headers. Empty where they are absent or not what the
    standard says: anybody may have written them.
    """
    parent = traceparent or value_of(headers, "traceparent") or ""
    state = value_of(headers, "tracestate") or ""
    if not _TRACEPARENT.match(parent):
        return {}
    return {"traceparent": parent} | ({"tracestate": state} if _TRACESTATE.match(state) else {})
