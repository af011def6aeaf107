"""CloudEvents in JSON whose data has another format: `data_base64` is opened as `data`."""

import base64
import json
from collections.abc import Callable

from sahool_dlq.deadletter.body import text_of
from sahool_dlq.deadletter.decoding.opened import BodyError, Opened
from sahool_dlq.deadletter.redaction.json_text import Member, members
from sahool_dlq.deadletter.sanitize import parse_json

__all__ = ["BINARY_DATA", "with_opened_data"]

BINARY_DATA = "data_base64"
"""The member that has the data."""


def with_opened_data(event: Opened, open_data: Callable[[bytes, str], Opened]) -> Opened:
    """The event with its data opened too; unchanged if it is no CloudEvent with such data.

    `open_data` gets the data and their content type; if it raises BodyError, `problem` says why.
    """
    try:
        text, form = text_of(event.json)
        if BINARY_DATA not in text:
            return event
        value, spelt = json.loads(text), members(text)
        is_event, data = "specversion" in value, base64.b64decode(value[BINARY_DATA], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError):
        return event
    if not is_event:
        return event
    try:
        inner = open_data(data, str(value.get("datacontenttype", "")))
        parse_json(inner.json)
        shown = _renamed(spelt, BINARY_DATA, "data", inner.json.decode())
    except BodyError as error:
        return event._replace(problem=f"its {BINARY_DATA}: {error}")
    except ValueError:  # no JSON, which is allowed
        return event

    def closed(edited: bytes) -> bytes:
        spelt = members(text_of(edited)[0])
        data = inner.closed(spelt["data"].value.encode()) if "data" in spelt else b""
        text = json.dumps(base64.b64encode(data).decode())
        return event.closed(form.bytes_of(_renamed(spelt, "data", BINARY_DATA, text)))

    formats = [name for name in (event.format, "cloudevent", inner.format) if name]
    return Opened(form.bytes_of(shown), "+".join(formats), closed, inner.problem)


def _renamed(spelt: dict[str, Member], old: str, new: str, text: str) -> str:
    """The object with one member under another name, in its place, or at the end."""
    kept = {name: member for name, member in spelt.items() if name != new}
    kept.setdefault(old, Member("", ""))
    own = Member(json.dumps(new), text)
    found = [own if name == old else member for name, member in kept.items()]
    return "{" + ",".join(f"{key}:{value}" for key, value in found) + "}"
