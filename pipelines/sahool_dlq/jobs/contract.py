"""The complete job that learns the contract of a subject, and says which failures left it.

The contract is what the events have in common that a consumer handled. Nothing is published,
acknowledged or stored. Only redacted values are read.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError

from sahool_dlq.analysis.why.contract import LEAST_BODIES, Contract, Rule, learned
from sahool_dlq.analysis.why.observation import Observation, origin_of
from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.errors import ComparisonError, ServerUnavailableError
from sahool_dlq.jetstream.stored import StoredMessage, stored_message
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.failing import FailingConsumer, failing_consumers, failing_events
from sahool_dlq.reproduce.observed import observed
from sahool_dlq.reproduce.successes import (
    MOST_BYTES,
    NoSuccessesError,
    Sampling,
    sampled_events,
    undrained_count,
)
from sahool_dlq.settings import Settings

__all__ = ["MOST_READ", "Breach", "ContractReport", "FirstEvent", "contract_of"]

MOST_READ = 10_000
"""Default number of sequences that are searched for the first event that left the contract."""
_AT_ONCE = 8
"""Parts of the stream that are searched at the same time."""
_PART = 200
"""Events that are redacted and checked together."""


@dataclass(frozen=True, slots=True)
class FirstEvent:
    """The first event that broke a rule, of those that were read."""

    sequence: int
    at: datetime  # the server's time
    publisher: str | None  # the service
    origin: dict[str, str]  # fields that say by which version it was published


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule of the contract that failing events break."""

    rule: Rule
    failures: int  # that break it
    first: FirstEvent | None  # None: it left the stream meanwhile


@dataclass(frozen=True, slots=True)
class ContractReport:
    """The contract of a subject, and what left it."""

    subject: str
    consumer: str  # `<stream>/<durable>` that handled the events
    contract: Contract
    failures: int  # events that were checked
    fitting: int  # of these, that fulfil the contract: they failed for another reason
    lost: int  # failures whose event has left the stream
    breaches: tuple[Breach, ...]  # the one with most failures first
    searched_from: int | None  # sequence; None: nothing was searched
    begins_at: int  # first sequence of the stream
    undrained: int  # messages of the log; some of the successes may have failed there

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `schema` is JSON Schema."""
        told = {name: getattr(self, name) for name in self.__slots__ if name != "contract"}
        return {
            **told,
            "schema": self.contract.schema,
            "learned_from": self.contract.bodies,
            "breaches": [
                {**asdict(each), "rule": {**each.rule._asdict(), "sentence": str(each.rule)}}
                for each in self.breaches
            ],
        }


async def contract_of(
    settings: Settings,
    subject: str,
    *,
    consumer: str | None = None,
    limit: int = 500,
    sample: int = 1_000,
    seed: int = 0,
    most_read: int = MOST_READ,
) -> ContractReport:
    """The contract that `sample` events of a subject fulfil which a consumer handled; and the first
    event, of the `most_read` sequences before, that broke each rule which failing events break.

    Without `consumer`, a durable name or `<stream>/<durable>`, that with most failures of the
    subject. At most `limit` failures are checked. Raises ComparisonError if there is no such
    consumer, or it has handled too few events; ServerUnavailableError, and NotPermittedError.
    """
    with open_postgres(settings) as connection:
        async with open_nats(settings, "dlq contract") as client:
            known, _ = failing_consumers(connection, Selection(subject=subject, limit=limit), seed)
            failing = _chosen(known, subject, _address(settings, consumer))
            try:
                successes = await sampled_events(
                    client, connection, failing.address, Sampling(sample, seed, subject=subject)
                )
            except NoSuccessesError as error:
                raise ComparisonError(f"There is nothing to learn from: {error}.") from error
            search = _Search(settings, client, failing.address.partition("/")[0], subject)
            contract = learned([each.body for each in search.observed(successes)])
            if contract.bodies < LEAST_BODIES:
                raise ComparisonError(
                    f"{failing.address} has handled only {contract.bodies:,} events of {subject}:"
                    f" a contract is learned from {LEAST_BODIES}."
                )
            found, lost = await failing_events(client, failing, MOST_BYTES)
            undrained = await undrained_count(settings, client, connection)
            await search.all(contract, [each.event for each in found], most_read)
    return ContractReport(
        subject, failing.address, contract, len(found), search.fitting, lost,
        search.breaches(), search.searched_from, search.begins_at, undrained,
    )  # fmt: skip


def _address(settings: Settings, consumer: str | None) -> str | None:
    is_whole = consumer is None or "/" in consumer
    return consumer if is_whole else f"{settings.events_stream}/{consumer}"


def _chosen(
    failing: Sequence[FailingConsumer], subject: str, address: str | None
) -> FailingConsumer:
    for each in failing:
        if address in (None, each.address):
            return each
    if address is None:
        raise ComparisonError(
            f"No failure is of the subject {subject[:200]!r}: say with --consumer who handles it."
        )
    return FailingConsumer(address, 0, ())


class _Search:
    """The failures that leave a contract, and the first events that did."""

    def __init__(self, settings: Settings, client: Client, stream: str, subject: str) -> None:
        self._redactor = settings.redactor(settings.rules)
        self._decoders = settings.decoders(settings.rules)
        self._client, self._stream, self._subject = client, stream, subject
        self._counts: Counter[Rule] = Counter()
        self._first: dict[Rule, tuple[int, Observation]] = {}
        self.fitting = self.begins_at = 0
        self.searched_from: int | None = None

    def observed(self, events: Sequence[StoredMessage]) -> list[Observation]:
        """The events, decoded and redacted."""
        return observed(events, self._redactor, self._decoders)

    def breaches(self) -> tuple[Breach, ...]:
        """What was found, that with most failures first."""
        ordered = sorted(self._counts.items(), key=lambda each: (-each[1], each[0]))
        return tuple(Breach(rule, count, self._told(rule)) for rule, count in ordered)

    def _told(self, rule: Rule) -> FirstEvent | None:
        if rule not in self._first:
            return None
        sequence, event = self._first[rule]
        return FirstEvent(sequence, event.at, event.publisher, origin_of(event))

    async def all(
        self, contract: Contract, failing: Sequence[StoredMessage], most_read: int
    ) -> None:
        """Check the failing events, then search before them for the first that broke their rules.

        Raises ServerUnavailableError.
        """
        for rules in self._check(contract, failing, wanted=None):
            self._counts.update(rules)
            self.fitting += not rules
        try:
            state = (await self._client.jetstream().stream_info(self._stream)).state
            self.begins_at = state.first_seq
            if not self._first:
                return
            last = max(sequence for sequence, _ in self._first.values()) - 1
            low = max(self.begins_at, last - most_read + 1)
            self.searched_from = low
            width = max(-(-(last - low + 1) // _AT_ONCE), 1)
            await asyncio.gather(
                *(
                    self._walk(contract, begin, min(begin + width - 1, last))
                    for begin in range(low, last + 1, width)
                )
            )
        except (APIError, nats.errors.Error, TimeoutError) as error:
            said = f"Stream {self._stream} cannot be read ({error!r}): try again."
            raise ServerUnavailableError(said) from error

    async def _walk(self, contract: Contract, at: int, last: int) -> None:
        """Check the events of one part of the stream, until each rule was broken there."""
        missing = set(self._counts)
        while at <= last and missing:
            part: list[StoredMessage] = []
            while at <= last and len(part) < _PART:
                stored = await stored_message(self._client, self._stream, at, self._subject)
                if stored is None or stored.sequence > last:
                    at = last + 1
                else:
                    part.append(stored)
                    at = stored.sequence + 1
            for rules in self._check(contract, part, wanted=missing):
                missing -= rules

    def _check(
        self, contract: Contract, events: Sequence[StoredMessage], wanted: set[Rule] | None
    ) -> list[frozenset[Rule]]:
        """The rules that each event breaks; remembers the first event of each that is `wanted`."""
        seen = self.observed(events)
        broken = contract.broken([each.body for each in seen])
        for stored, event, rules in zip(events, seen, broken, strict=True):
            for rule in rules if wanted is None else rules & wanted:
                if rule not in self._first or stored.sequence < self._first[rule][0]:
                    self._first[rule] = (stored.sequence, event)
        return broken
