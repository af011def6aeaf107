"""Copies of failed events for another NATS, such as a staging system or a laptop.

A copy is a new event there. It has no header of a redrive, so no consumer there reports an outcome
for a redrive that its platform does not know, and nothing that happens to it is reported here.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from sahool_dlq.connections import find_log
from sahool_dlq.deadletter.headers import MutableHeaders, headers_of_json
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import DLQError, RedriveError
from sahool_dlq.jetstream.connection import wire_size
from sahool_dlq.redrive.allowed import check_event_subject
from sahool_dlq.redrive.origin import RefusedError, event_headers
from sahool_dlq.redrive.publish.rate_limit import Budget
from sahool_dlq.reproduce.raw import AT_ONCE, Missing, RawEvent
from sahool_dlq.settings import Settings

__all__ = ["COPY_OF", "Copy", "Publisher", "check_elsewhere", "masked_copy", "raw_copy"]

COPY_OF = "Dlq-Copy-Of"
"""The header of a copy: the id of the failure. No consumer reads it."""
_NO_STREAM = "no stream there captures its subject"


@dataclass(frozen=True, slots=True)
class Copy:
    """What is published for one failure."""

    failure_id: str
    subject: str
    body: bytes
    headers: MutableHeaders  # without those of the server and of redrives


def raw_copy(event: RawEvent) -> Copy:
    """The copy with the original bytes."""
    return Copy(event.failure_id, event.subject, event.body, event_headers(event.headers))


def masked_copy(row: Sequence[Any]) -> Copy | Missing:
    """The copy of a row of `selected_events`, masked as stored.

    A body that is not JSON is missing: nobody can tell what a masked part of it would mean. So is
    one that was decoded: it is stored as JSON, which its consumer does not expect.
    """
    failure_id, subject, headers, encoding, body_format, body = row
    if body_format is not None:
        return Missing(failure_id, f"its body is {body_format}, so only --raw copies it")
    if encoding not in (None, "json") or body.startswith(('{"raw_data"', '{"refused"')):
        return Missing(failure_id, "its body is not JSON, so only --raw copies it")
    return Copy(failure_id, subject, body.encode(), event_headers(headers_of_json(headers or {})))


async def check_elsewhere(settings: Settings, here: Client, there: Client) -> None:
    """Raise RedriveError if both connections lead to the same log: then it is not another NATS."""
    ours = await find_log(here, settings)
    try:
        theirs = await find_log(there, settings)
    except DLQError:
        return  # it has no such log, or shows it to nobody
    if ours.life == theirs.life:
        raise RedriveError(
            "That is the NATS on which these events failed: a redrive needs no --to-context there,"
            " and --to publishes to another subject."
        )


class Publisher:
    """Publishes copies, and counts those that are left out, by reason."""

    def __init__(
        self, client: Client, own: Subjects, copy_id: str, subject: str | None, per_second: float
    ) -> None:
        self.copied: Counter[str] = Counter()  # by subject
        self.left_out: Counter[str] = Counter()
        self._client = client
        self._js = client.jetstream()
        self._own = own
        self._copy_id = copy_id
        self._subject = subject
        self._budget = Budget(per_second, per_second, {})
        self._never = asyncio.Event()

    async def publish(self, copies: Sequence[Copy | Missing]) -> None:
        """Publish, a few at once; raises NotPermittedError and ServerUnavailableError."""
        for start in range(0, len(copies), AT_ONCE):
            await asyncio.gather(*map(self._one, copies[start : start + AT_ONCE]))

    async def _one(self, copy: Copy | Missing) -> None:
        if isinstance(copy, Missing):
            self.left_out[copy.reason] += 1
            return
        subject = self._subject or copy.subject
        headers: MutableHeaders = copy.headers | {
            COPY_OF: copy.failure_id,
            "Nats-Msg-Id": f"{self._copy_id}-{copy.failure_id}",  # a repeat is stored once
        }
        try:
            check_event_subject(subject, self._own)
            size = wire_size(copy.body, headers)
            if size > self._client.max_payload:  # the server would drop the connection
                raise RefusedError(
                    f"with its headers it has {size:,} bytes, too many for that NATS"
                )
            await self._budget.turn("", self._never)
            await self._js.publish(subject, copy.body, headers=headers, timeout=10)
        except (RefusedError, nats.errors.BadHeaderError) as error:
            self.left_out[str(error)] += 1
        except NoStreamResponseError:
            self.left_out[_NO_STREAM] += 1
        except APIError as error:
            self.left_out[f"that NATS refuses it: {error.description}"] += 1
        else:
            self.copied[subject] += 1
