"""Schemas of Avro from a schema registry with Confluent's HTTP interface, by id.

Answers are remembered, also that the registry does not answer: then bodies stay opaque for a while,
and nobody waits for each of them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import SecretStr

from sahool_dlq.deadletter.decoding.avro import AvroSchema
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.deadletter.decoding.rules import DecodingRule

if TYPE_CHECKING:
    import httpx

__all__ = ["SchemaRegistry", "decoders_of"]

_TIMEOUT_SECONDS = 5.0
_SILENT_SECONDS = 30.0  # after a failure, until it is asked again
_MOST_UNKNOWN = 100  # ids without a schema that are asked for: forged bodies can have any
_MOST_REFERENCES = 50


def decoders_of(
    rules: Sequence[DecodingRule], folder: Path, registry: SecretStr | None
) -> Decoders:
    """The decoders of these rules, whose files are relative to `folder`.

    Raises ValueError for a rule that cannot be used, OSError for a file that cannot be read.
    """
    return Decoders(
        rules,
        lambda name: (folder / name).read_bytes(),
        SchemaRegistry(registry.get_secret_value()).schema if registry else None,
    )


class SchemaRegistry:
    """One registry."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._known: dict[int, AvroSchema | BodyError] = {}
        self._unknown_count = 0
        self._silence: tuple[float, BodyError] | None = None

    def schema(self, number: int) -> AvroSchema:
        """The schema with this id; raises BodyError if there is none, or no answer."""
        if number not in self._known:
            self._known[number] = self._asked(number)
        found = self._known[number]
        if isinstance(found, BodyError):
            raise found
        return found

    def _asked(self, number: int) -> AvroSchema | BodyError:
        """Raises BodyError if the registry does not answer."""
        if self._unknown_count >= _MOST_UNKNOWN:
            raise BodyError(f"the schema registry did not have {_MOST_UNKNOWN} schemas before it")
        try:
            return self._schema(self._get(f"schemas/ids/{number}"), [])
        except ValueError as error:
            if isinstance(error, _SilenceError):
                raise
            self._unknown_count += 1
            return BodyError(f"schema {number} of the schema registry: {error}")

    def _schema(self, answer: Any, seen: list[str]) -> AvroSchema:
        """The schema in an answer, after those that it refers to."""
        try:
            kind, text = answer.get("schemaType", "AVRO"), answer["schema"]
            references = [(r["subject"], r["version"]) for r in answer.get("references", ())]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("the answer has no schema") from error
        if kind != "AVRO":
            raise ValueError(f"it is of type {kind}, not AVRO")
        named: dict[str, Any] = {}
        for subject, version in references:
            seen.append(subject)
            if len(seen) > _MOST_REFERENCES:
                raise ValueError(f"it refers to more than {_MOST_REFERENCES} other schemas")
            path = f"subjects/{quote(subject, safe='')}/versions/{int(version)}"
            named |= self._schema(self._get(path), seen).named
        return AvroSchema(json.loads(text), named)

    def _get(self, path: str) -> Any:
        import httpx  # slow to import, and only needed with a registry

        if self._silence and monotonic() < self._silence[0]:
            raise self._silence[1]
        try:
            answer = httpx.get(f"{self._url}/{path}", timeout=_TIMEOUT_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._silent(f"it does not answer ({type(error).__name__})") from error
        return self._content(answer)

    def _content(self, answer: "httpx.Response") -> Any:
        status = answer.status_code
        if status == 404:
            raise ValueError("it does not exist")
        if status != 200:
            raise self._silent(f"it answered {status}")
        return answer.json()

    def _silent(self, why: str) -> "_SilenceError":
        error = _SilenceError(f"the schema registry cannot be used: {why}")
        self._silence = monotonic() + _SILENT_SECONDS, error
        return error


class _SilenceError(BodyError):
    """The registry does not answer, so nothing is known about any schema."""
