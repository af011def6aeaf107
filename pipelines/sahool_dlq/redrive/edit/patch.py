"""The edit of a batch: changes of an event's body and headers.

A body is changed by a JSON merge patch (RFC 7396), a JSON Patch (RFC 6902), or a Python function
(see `edit.function`). Its other parts keep their spelling, byte by byte, including numbers.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import jsonpatch

from sahool_dlq.deadletter.body import text_of
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.headers import Headers, MutableHeaders
from sahool_dlq.deadletter.redaction.json_text import Member, members
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.sanitize import dump_json, kind_of, parse_json
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.edit.bodies import edited
from sahool_dlq.redrive.origin import Event, RefusedError

__all__ = ["Edit", "HeaderPatch", "checked_headers", "edit_of", "patched", "read_edit", "storable"]

Patch = dict[str, Any] | list[dict[str, Any]]
"""A merge patch, or a JSON Patch."""
HeaderPatch = dict[str, str | list[str] | None]
"""New values by header; None removes it."""

_MOST_BYTES = 100_000
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_UNSENDABLE = re.compile(r"[\r\n\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Edit:
    """What a batch changes in its events."""

    body: Patch | None = None
    headers: HeaderPatch | None = None
    function: str | None = None  # module:function, which was called with each event of the plan
    events: Mapping[str, Mapping[str, Any]] | None = None  # its results: `body`, `headers`, by id

    def stored(self) -> Any:
        """The edit for `redrive_batches.patch`; `edit_of` reads it.

        A patch of bodies only is stored as it is. Anything else is an array of one object.
        """
        if self.headers is None and self.function is None:
            return self.body
        fields = ("body", "headers", "function", "events")
        return [{name: held for name in fields if (held := getattr(self, name)) is not None}]

    def of_failure(self, failure_id: str) -> "Edit":
        """The edit of one event; raises RefusedError if the function was not called with it."""
        if self.function is None:
            return self
        if self.events is None or failure_id not in self.events:
            raise RefusedError(f"{self.function} was not called with its event")
        return Edit(**self.events[failure_id])

    def applied(self, event: Event, decoders: Decoders) -> Event:
        """The event with the changes; raises RefusedError if they cannot be applied to it."""
        body, patch = event.body, self.body
        if patch:
            body = edited(event, decoders, lambda body: patched(body, patch))
        return replace(event, body=body, headers=_with_headers(event.headers, self.headers or {}))

    def names(self) -> list[str]:
        """The names of what it changes, without values."""
        operations = self.body if isinstance(self.body, list) else []
        found = sorted(self.body) if isinstance(self.body, dict) else []
        found += [operation["path"] for operation in operations]
        found += [f"headers.{name}" for name in sorted(self.headers or {})]
        return [*found, *filter(None, [self.function])]

    def shown(self, redactor: Redactor) -> Any:
        """As `stored`, redacted, and without the results of the function."""

        def masked(value: Any) -> Any:
            return json.loads(redactor.redact_json(json.dumps(value)))

        def operation(held: dict[str, Any]) -> dict[str, Any]:
            if "value" not in held:
                return held
            key = held["path"].rpartition("/")[2].replace("~1", "/").replace("~0", "~")
            return held | {"value": masked({key: held["value"]})[key]}

        body = [operation(o) for o in self.body] if isinstance(self.body, list) else self.body
        if isinstance(body, dict):
            body = masked(body)
        headers = None if self.headers is None else masked(self.headers)
        return Edit(body, headers, self.function).stored()


def edit_of(stored: Any) -> Edit:
    """The edit in a value of `Edit.stored`; raises RedriveError if it cannot be used."""
    if isinstance(stored, list) and len(stored) == 1 and "op" not in stored[0]:
        edit = Edit(**stored[0])
    else:
        edit = Edit(stored)
    if edit.body is not None:
        read_edit(json.dumps(edit.body))
    if edit.headers is not None:
        checked_headers(edit.headers)
    return edit


def read_edit(text: str) -> Patch:
    """A user's patch of bodies; raises RedriveError if it is not valid or cannot be stored."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RedriveError(f"The edit is not JSON: {error}.") from error
    if not isinstance(value, dict | list) or not value:
        raise RedriveError(
            'The edit must be a JSON object that names what to change, {"unit": "ha"}, where null'
            ' removes a key; or a JSON Patch, [{"op": "replace", "path": "/unit", "value": "ha"}].'
        )
    if len(text.encode(errors="surrogatepass")) > _MOST_BYTES:
        raise RedriveError(f"The edit has more than {_MOST_BYTES:,} bytes.")
    if unstorable := storable(text):
        raise RedriveError(
            f"The edit contains {unstorable}, which PostgreSQL cannot store: leave it out."
        )
    if isinstance(value, list):
        try:
            jsonpatch.JsonPatch(value)
        except _WRONG_PATCH as error:
            raise RedriveError(f"The edit is not a JSON Patch (RFC 6902): {error}.") from error
    return value


def storable(text: str) -> str | None:
    """What PostgreSQL cannot store of this JSON; None if it can store all of it."""
    mended: set[str] = set()
    try:
        parse_json(text.encode(errors="surrogatepass"), mended)
    except (ValueError, RecursionError) as error:
        return str(error)
    # Integers beyond 64 bits are stored; bodies may have them.
    return next(iter(sorted(mended - {"an integer beyond 64 bits"})), None)


def checked_headers(value: Any) -> HeaderPatch:
    """A user's changes of headers; raises RedriveError if they cannot be sent."""
    if not isinstance(value, dict) or not value:
        raise RedriveError(
            'The headers must be a JSON object such as {"X-Unit": "ha", "X-Old": null}: an array'
            " gives a header several values, null removes it."
        )
    for name, held in value.items():
        values = held if isinstance(held, list) and held else [held]
        if not _HEADER.fullmatch(name):
            raise RedriveError(f"{name[:100]!r} is not a name of a header.")
        if name.lower().startswith(("nats-", "dlq-")):
            raise RedriveError(f"The header {name} cannot be edited: each redrive sets its own.")
        if odd := [v for v in values if not isinstance(v, str) and held is not None]:
            raise RedriveError(f"The header {name} needs texts, not {kind_of(odd[0])}.")
        if any(_UNSENDABLE.search(v) for v in values if v is not None):
            raise RedriveError(
                f"The value of the header {name} has a character that cannot be sent."
            )
    return cast("HeaderPatch", value)


def patched(body: bytes, patch: Patch) -> bytes:
    """The body with the patch applied, in its original form: encoding, byte order mark, gzip.

    Raises RefusedError for a body that is not JSON, for a merge patch not a JSON object, or to
    which a JSON Patch does not apply.
    """
    is_merge = isinstance(patch, dict)
    try:
        value = parse_json(body)
    except ValueError:
        raise RefusedError(f"it cannot be edited, because it is not {_NEEDED[is_merge]}") from None
    if is_merge and not isinstance(value, dict):
        raise RefusedError(f"it cannot be edited, because it is not {_NEEDED[is_merge]}")
    text, form = text_of(body)
    if isinstance(patch, dict):
        return form.bytes_of(_merged(text, patch))
    return form.bytes_of(_operated(text, patch))


_NEEDED = {True: "a JSON object", False: "JSON"}
_WRONG_PATCH = (
    *(jsonpatch.JsonPatchException, jsonpatch.JsonPointerException),
    *(TypeError, KeyError, AttributeError),  # of operations with values of other types
)


def _merged(target: str, patch: Any) -> str:
    if not isinstance(patch, dict):
        return dump_json(patch)
    value = (
        members(target) if target.lstrip().startswith("{") else {}
    )  # a value that is not an object becomes one
    for key, change in patch.items():
        if change is None:
            value.pop(key, None)
        else:
            old = value.get(key) or Member(dump_json(key), "")
            value[key] = Member(old.key, _merged(old.value, change))
    return "{" + ",".join(f"{key}:{text}" for key, text in value.values()) + "}"


def _operated(text: str, patch: list[dict[str, Any]]) -> str:
    try:
        after = _read(text)
    except (ValueError, RecursionError):
        raise RefusedError("it cannot be edited, because it is nested too deeply") from None
    for operation in patch:
        try:
            after = jsonpatch.apply_patch(after, [operation])
        except (*_WRONG_PATCH, ValueError, RecursionError):
            # The library's message may have values of the event.
            said = f"{operation['op']} {operation['path']}"
            raise RefusedError(f"the JSON Patch does not apply to it: {said}") from None
    return _respelt(text, after)


class _Fraction(float):
    """A number that keeps its spelling, such as 1.10."""

    text: str

    def __new__(cls, text: str) -> "_Fraction":
        self = super().__new__(cls, text)
        self.text = text
        return self


def _read(text: str) -> Any:
    return json.loads(text, parse_float=_Fraction)


def _respelt(text: str, after: Any) -> str:
    """The JSON of `after`, with the spelling in `text` of all values that are as before."""
    before = _read(text)
    if _written(before) == _written(after):
        return text
    if not isinstance(before, dict) or not isinstance(after, dict):
        return _written(after)
    old = members(text)
    pieces = [
        f"{held.key}:{_respelt(held.value, value)}"
        if (held := old.get(key))
        else f"{dump_json(key)}:{_written(value)}"
        for key, value in after.items()
    ]
    return "{" + ",".join(pieces) + "}"


def _written(value: Any) -> str:
    if isinstance(value, _Fraction):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{dump_json(k)}:{_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return dump_json(value)


def _with_headers(headers: Headers, patch: HeaderPatch) -> MutableHeaders:
    """The headers with new values; names ignore the case, and keep the spelling that they had."""
    spelt = {name.lower(): name for name in headers}
    found = {name: held if isinstance(held, str) else list(held) for name, held in headers.items()}
    for name, held in patch.items():
        for same in [each for each in found if each.lower() == name.lower()]:
            del found[same]
        if held is not None:
            found[spelt.get(name.lower(), name)] = held
    return found
