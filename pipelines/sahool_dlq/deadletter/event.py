"""The ids in an event's body and headers."""

import json
from typing import Any

from sahool_dlq.deadletter.headers import Headers, value_of
from sahool_dlq.deadletter.sanitize import clean_text

__all__ = ["event_ids"]

_IDS = ("tenant_id", "field_id", "farmer_id", "source_service")


def event_ids(body: Any, headers: Headers) -> dict[str, str]:
    """The known values of `event_id`, `tenant_id`, `field_id`, `farmer_id` and `source_service`.

    `body` is the parsed body. The event's id is its `event_id`, else that of a CloudEvent (`id`
    beside `specversion`, or the header `ce-id`), else its `Nats-Msg-Id`. A CloudEvent has the other
    values at the top or in its `data`.
    """
    payload: dict[str, Any] = body if isinstance(body, dict) else {}
    is_cloud_event = "specversion" in payload and "id" in payload
    data = payload.get("data") if is_cloud_event else None
    inner: dict[str, Any] = data if isinstance(data, dict) else {}
    found = {
        name: _text(payload if payload.get(name) is not None else inner, name) for name in _IDS
    }
    found["event_id"] = (
        _text(payload, "event_id")
        or (_text(payload, "id") if is_cloud_event else None)
        or value_of(headers, "ce-id")
        or value_of(headers, "nats-msg-id")
    )
    return {name: text for name, text in found.items() if text is not None}


def _text(payload: dict[str, Any], key: str) -> str | None:
    value = payload.get(key)
    if value is None:
        return None
    return clean_text(value if isinstance(value, str) else json.dumps(value))
