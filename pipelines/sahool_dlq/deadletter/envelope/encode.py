"""Encodes the messages that services and operators write to the log: dead letters and case events.

Standard library only, because every service that consumes events imports it.
"""

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sahool_dlq.deadletter.sanitize import dump_json


def encode_dead_letter(fields: dict[str, Any], body: bytes, is_json: bool) -> bytes:
    """The canonical dead letter with an event's body.

    A JSON body is copied unchanged, at the end, so that it contains the original bytes; any other
    body becomes base64. `fields` are the canonical keys without `original_data` and
    `payload_encoding`.
    """
    if is_json:
        encoding, data = "json", body
    else:
        encoding, data = "base64", json.dumps({"base64": base64.b64encode(body).decode()}).encode()
    head = json.dumps({**fields, "payload_encoding": encoding}, default=str)
    return head[:-1].encode() + b', "original_data": ' + data + b"}"


def base64_body(data: bytes | str) -> bytes:
    """The body in `original_data` of a dead letter with base64; raises ValueError."""
    try:
        return base64.b64decode(json.loads(data)["base64"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("its base64 body cannot be decoded") from error


def encode_pointer(fields: dict[str, Any], pointer: dict[str, Any]) -> bytes:
    """The dead letter of an event whose body is in an object store because it is too large."""
    whole = {**fields, "payload_encoding": "object", "original_data": {"object": pointer}}
    return json.dumps(whole, default=str).encode()


def encode_case_event(
    *,
    failure_id: str,
    at: datetime,
    actor: str,
    reason: str | None = None,
    redrive_id: str | None = None,
    batch_id: str | None = None,
    attempt: int | None = None,
    trigger: str | None = None,
    consumer: str | None = None,
    consumer_version: str | None = None,
    not_before: datetime | None = None,
    redrive_cap: int | None = None,
    resolved_in_version: str | None = None,
    event: Mapping[str, str | int] = MappingProxyType({}),
) -> bytes:
    """The body of a case event; absent values are left out.

    `event` has the keys about the event of a replay, see `replays`.
    """
    value = {
        "failure_id": failure_id,
        "at": at.isoformat(),
        "actor": actor,
        "reason": reason,
        "redrive_id": redrive_id,
        "batch_id": batch_id,
        "attempt": attempt,
        "trigger": trigger,
        "consumer": consumer,
        "consumer_version": consumer_version,
        "not_before": not_before.isoformat() if not_before else None,
        "redrive_cap": redrive_cap,
        "resolved_in_version": resolved_in_version,
        **event,
    }
    return dump_json({name: item for name, item in value.items() if item is not None}).encode()


def encode_group_event(
    *, group_id: str, at: datetime, actor: str, reason: str, changes: Mapping[str, Any]
) -> bytes:
    """The body of a message about a group; `changes` has the keys of `group_changes`."""
    head = {"group_id": group_id, "at": at.isoformat(), "actor": actor, "reason": reason}
    return dump_json({**head, **changes}).encode()
