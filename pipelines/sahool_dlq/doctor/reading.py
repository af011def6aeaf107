"""Reads an account with read-only rights; nothing is created, changed or delivered.

Refused requests are recorded, and the rest is read.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from sahool_dlq.connections import open_nats
from sahool_dlq.deadletter.subjects import overlaps
from sahool_dlq.doctor.facts import Account, Consumer, Heard, Stream
from sahool_dlq.errors import NotPermittedError, StreamError
from sahool_dlq.jetstream.acks import ACKS, fields_of
from sahool_dlq.jetstream.api import ask
from sahool_dlq.jetstream.permissions import check_heard
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import GIVEN_UP
from sahool_dlq.settings import Settings

STREAMS, LIMITS = "STREAM.LIST", "INFO"
_NAK = b"-NAK"
_NO_JETSTREAM = (None, 10039, 10076)  # nobody answers, not for this account, not at this server
_TIMEOUT_SECONDS = 20


async def read_account(
    settings: Settings, *, listen_seconds: float = 2.0, stalled_seconds: float = 900.0
) -> Account:
    """The account's streams and consumers, and acknowledgements within `listen_seconds`.

    Raises ServerUnavailableError if no server answers, and StreamError if the account has no
    JetStream.
    """
    async with open_nats(settings, "dlq doctor") as client:
        reader = _Reader(client, settings.stream_names)
        heard = await reader.listen(listen_seconds)
        streams = await reader.streams()
        consumers = [each for stream in streams for each in await reader.consumers(stream)]
        version = client.connected_server_version
        return Account(
            tuple(streams),
            tuple(consumers),
            await reader.asked(LIMITS) or {},
            (version.major, version.minor),
            settings.stream_names,
            heard,
            reader.unseen,
            reader.clock_seconds,
            stalled_seconds,
        )


class _Reader:
    """One reading of an account."""

    def __init__(self, client: Client, names: StreamNames) -> None:
        self.unseen: dict[str, str] = {}  # requests, and why nobody answered
        self.clock_seconds = 0.0
        self._client, self._names = client, names
        self._js: JetStreamContext = client.jetstream(timeout=_TIMEOUT_SECONDS)

    async def asked(self, what: str, **body: Any) -> dict[str, Any] | None:
        """An answer of the server; None, and a record, if there is none."""
        try:
            return await ask(self._js, what, **body)
        except ServiceUnavailableError as error:
            if error.err_code in _NO_JETSTREAM:
                raise StreamError(
                    "NATS has no JetStream for this account: it stores nothing."
                ) from error
            self.unseen[what] = str(error)
            return None
        except NotFoundError:
            return None  # it was deleted meanwhile
        except (NotPermittedError, APIError, TimeoutError) as error:
            self.unseen[what] = str(error) or "the server does not answer"
            return None

    async def streams(self) -> list[Stream]:
        """All of them, with the counts of their subjects if a rule needs these."""
        started = time.time()
        infos = await self._pages(STREAMS, "streams")
        self._compare_clocks(infos, started, time.time())
        return [Stream(info, await self._counts(Stream(info))) for info in infos]

    async def consumers(self, stream: Stream) -> list[Consumer]:
        """Those of a stream."""
        found = await self._pages(f"CONSUMER.LIST.{stream.name}", "consumers")
        return [Consumer(stream, info) for info in found]

    async def listen(self, seconds: float) -> dict[tuple[str, str], Heard]:
        """Acknowledgements of consumers, for events that they give back."""
        heard: dict[tuple[str, str], Heard] = {}
        if seconds <= 0:
            return heard

        async def note(msg: Msg) -> None:
            if not msg.data.startswith(_NAK):
                return
            stream, consumer, count, *_ = fields_of(msg.subject)
            of_one = heard.setdefault((stream, consumer), Heard())
            of_one.bare_naks += msg.data.strip() == _NAK
            of_one.most_deliveries = max(of_one.most_deliveries, int(count))

        subject = f"{ACKS}>"
        subscription = await self._client.subscribe(subject, cb=note)
        try:
            await check_heard(self._client, subject)
            await asyncio.sleep(seconds)
            await subscription.unsubscribe()
        except NotPermittedError as error:
            self.unseen[subject] = str(error)
        return heard

    async def _pages(self, what: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while answer := await self.asked(what, offset=len(found)):
            page = answer.get(key) or []
            found += page
            if not page or len(found) >= answer.get("total", 0):
                break
        return found

    async def _counts(self, stream: Stream) -> Mapping[str, int]:
        """The number of messages of each subject that a rule needs."""
        wanted = [f"{GIVEN_UP}.>", self._names.subjects.totals]
        filters = [each for each in wanted if any(overlaps(each, have) for have in stream.subjects)]
        if stream.is_queue:
            filters = [">"]
        counts: dict[str, int] = {}
        for each in filters:
            answer = await self.asked(f"STREAM.INFO.{stream.name}", subjects_filter=each)
            counts |= ((answer or {}).get("state") or {}).get("subjects") or {}
        return counts

    def _compare_clocks(
        self, infos: list[dict[str, Any]], asked_at: float, answered_at: float
    ) -> None:
        times = [datetime.fromisoformat(each["ts"]).timestamp() for each in infos if "ts" in each]
        if times:
            ahead = min(times) - answered_at  # at least this much, however long the answer took
            behind = asked_at - max(times)
            self.clock_seconds = max(ahead, 0.0) or -max(behind, 0.0)
