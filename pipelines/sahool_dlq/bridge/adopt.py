"""Changes a consumer without our library, so that it gives up events that always fail, or proves
successes.

The server's configuration is read and written back with few values changed: a client's own model of
a consumer would drop values that the client does not know.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nats.aio.client import Client

from sahool_dlq.bridge.consumer_figures import all_consumers
from sahool_dlq.bridge.totals import latest_totals, owner_of
from sahool_dlq.errors import AdoptionError
from sahool_dlq.jetstream.api import api_subject
from sahool_dlq.settings import Settings

_NO_STREAM, _NO_CONSUMER = 10059, 10014  # the server's codes for "not found"
SAMPLING = ("sample_freq",)
"""The setting that a proof changes."""
LIMITS = ("max_deliver", "backoff", "ack_wait")
"""The settings that decide when it gives an event up; with a backoff, ack_wait is its first value.
"""
_MAX_DELIVER = 5
_NAME = re.compile(r"[^\s.*>/\\]+")


@dataclass(frozen=True, slots=True)
class Adoption:
    """A change of a consumer, planned or done: `before` and `after` are its configuration."""

    stream: str
    consumer: str
    before: dict[str, Any]
    after: dict[str, Any]
    redelivered: int = 0  # events delivered again that wait

    @property
    def address(self) -> str:
        """`<stream>/<durable>`, as a redrive names it."""
        return f"{self.stream}/{self.consumer}"

    @property
    def is_change(self) -> bool:
        """False if it already has these values."""
        return bool(self.changed)

    @property
    def changed(self) -> list[str]:
        """The names of the values that change."""
        names = self.before | self.after
        return [each for each in names if self.before.get(each) != self.after.get(each)]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "changed": self.is_change}


@dataclass(frozen=True, slots=True)
class Limits:
    """When a consumer gives an event up."""

    max_deliver: int | None = None  # None: unchanged if limited, else five
    backoff_seconds: tuple[float, ...] = ()  # waits for an acknowledgement; none: unchanged


def with_values(found: Adoption, values: Mapping[str, Any]) -> Adoption:
    """The same with these values after the change; None: without any."""
    rest = {name: value for name, value in found.after.items() if name not in values}
    return replace(found, after=rest | {k: v for k, v in values.items() if v is not None})


def limited(found: Adoption, limits: Limits) -> Adoption:
    """The same with a limit of deliveries per event.

    Raises AdoptionError if the backoff has more waits than there are deliveries.
    """
    now = int(found.after.get("max_deliver") or 0)
    most = limits.max_deliver or (now if now > 0 else _MAX_DELIVER)
    waits = [round(each * 1e9) for each in limits.backoff_seconds]
    if len(waits or found.after.get("backoff") or ()) > most:
        raise AdoptionError(
            f"The backoff of {found.address} has more waits than the {most} deliveries of"
            " max_deliver: remove some, or allow more deliveries."
        )
    values: dict[str, Any] = {"max_deliver": most}
    return with_values(found, values | ({"backoff": waits, "ack_wait": waits[0]} if waits else {}))


async def adoptable(client: Client, settings: Settings, name: str) -> Adoption:
    """The consumer `<stream>/<durable>`, or the one with that name, with its configuration.

    Raises AdoptionError if there is none or more than one, if it does not use explicit
    acknowledgements, or if it is ours.
    """
    stream, slash, consumer = name.rpartition("/")
    if not _NAME.fullmatch(consumer) or (slash and not _NAME.fullmatch(stream)):
        raise AdoptionError(f"{name!r} is not a consumer: give CONSUMER or STREAM/CONSUMER.")
    if not slash:
        stream = await _stream_of(client, consumer)
    found = await _as_it_is(client, stream, consumer)
    if stream in settings.stream_names.own:
        raise AdoptionError(
            f"{found.address} reads a stream of the platform itself: there are no successes to "
            "prove."
        )
    if owner := owner_of(await latest_totals(client, settings), (stream, consumer)):
        raise AdoptionError(
            f"{found.address} is a NATSConsumer of {owner}, which reports successes and totals"
            f" itself: it needs no proof."
        )
    if (policy := found.before.get("ack_policy")) != "explicit":
        raise AdoptionError(
            f"The server does not report acknowledgements by {found.address}, whose ack_policy is"
            f" {policy}: it must be explicit."
        )
    return found


async def change(client: Client, adoption: Adoption) -> None:
    """Change the consumer's configuration; raises AdoptionError if the server refuses it."""
    where = api_subject(client, f"CONSUMER.CREATE.{adoption.stream}.{adoption.consumer}")
    request = {"stream_name": adoption.stream, "config": adoption.after, "action": "update"}
    answer = await _asked(client, where, request)
    if error := answer.get("error"):
        raise AdoptionError(f"The server refused to change {adoption.address}: {_said(error)}.")


async def _stream_of(client: Client, consumer: str) -> str:
    streams = [
        info.stream_name async for _, info in all_consumers(client, ()) if info.name == consumer
    ]
    if not streams:
        raise AdoptionError(f"No stream has a consumer {consumer}: `nats consumer ls` lists them.")
    if len(streams) > 1:
        either = " or ".join(f"{stream}/{consumer}" for stream in sorted(streams))
        raise AdoptionError(f"Several streams have a consumer {consumer}: say {either}.")
    return streams[0]


async def _as_it_is(client: Client, stream: str, consumer: str) -> Adoption:
    answer = await _asked(client, api_subject(client, f"CONSUMER.INFO.{stream}.{consumer}"), None)
    if error := answer.get("error"):
        if error.get("err_code") == _NO_STREAM:
            raise AdoptionError(f"There is no stream {stream}: `nats stream ls` lists them.")
        if error.get("err_code") == _NO_CONSUMER:
            raise AdoptionError(
                f"Stream {stream} has no consumer {consumer}: `nats consumer ls {stream}` lists"
                " them."
            )
        raise AdoptionError(f"{stream}/{consumer} cannot be looked up: {_said(error)}.")
    config = dict(answer["config"])
    return Adoption(stream, consumer, config, config, answer.get("num_redelivered") or 0)


async def _asked(client: Client, subject: str, request: dict[str, Any] | None) -> dict[str, Any]:
    body = json.dumps(request).encode() if request else b""
    answer: dict[str, Any] = json.loads((await client.request(subject, body, timeout=10)).data)
    return answer


def _said(error: dict[str, Any]) -> str:
    return str(error.get("description", "it gives no reason")).rstrip(".")
