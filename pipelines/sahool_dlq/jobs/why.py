"""The complete job that compares failing events with those that the same consumer handled.

Nothing is published, acknowledged or stored. Only redacted values are compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.analysis.why.compare import LEAST_SUCCEEDING, compare
from sahool_dlq.analysis.why.difference import Comparison
from sahool_dlq.analysis.why.observation import Observation
from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.errors import ComparisonError
from sahool_dlq.jetstream.stored import StoredMessage
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.failing import FailingConsumer, failing_consumers, failing_events
from sahool_dlq.reproduce.observed import observed, versions_of
from sahool_dlq.reproduce.successes import (
    MOST_BYTES,
    NoSuccessesError,
    Sampling,
    sampled_events,
    undrained_count,
)
from sahool_dlq.settings import Settings

__all__ = ["SAMPLE", "ConsumerReport", "WhyReport", "why_these"]

SAMPLE = 500
"""Default number of events that succeeded, of each consumer."""
_MOST_CONSUMERS = 5
_LEAST_KNOWN = 0.9  # share of the events whose consumer version is known
_LEAST_AROUND = 20
"""Sequences around the failures from which successes come, as a multiple of the sample."""

Progress = Callable[[int, int], object]
"""Called with the number of consumers that were compared, and in all."""


@dataclass(frozen=True, slots=True)
class ConsumerReport:
    """What separates the failures of one consumer from what it handled."""

    consumer: str  # `<stream>/<durable>`
    failures: int  # that the selection has
    lost: int  # sampled failures whose event has left the stream
    comparison: Comparison | None
    why_none: str | None = None  # why there is no comparison
    events: tuple[Sequence[Observation], Sequence[Observation]] = ((), ())
    """The failing and the succeeding events that were compared, redacted; not in the JSON."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "consumer": self.consumer,
            "failures": self.failures,
            "lost": self.lost,
            "comparison": self.comparison and self.comparison.as_dict(),
            "why_none": self.why_none,
        }


@dataclass(frozen=True, slots=True)
class WhyReport:
    """The consumers with most failures of a selection, the largest first."""

    consumers: tuple[ConsumerReport, ...]
    left_out: int  # failures of other consumers, or without a known consumer or place
    undrained: int  # messages of the log; some of the successes may have failed there

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "consumers": [each.as_dict() for each in self.consumers],
            "left_out": self.left_out,
            "undrained": self.undrained,
        }


async def why_these(
    settings: Settings,
    selection: Selection,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    most_bytes: int = MOST_BYTES,
    progress: Progress | None = None,
) -> WhyReport:
    """What the failures of a selection have that other events of their consumers do not have.

    For each consumer at most `selection.limit` failures are read, and `sample` events that it
    acknowledged and that never failed, of about the same time; of either `most_bytes` of bodies.
    The same `seed` reads the same events, as long as the stream has them. Raises ComparisonError if
    no failure matches, ServerUnavailableError, and NotPermittedError.
    """
    with open_postgres(settings) as connection:
        async with open_nats(settings, "dlq why") as client:
            consumers, left_out = failing_consumers(connection, selection, seed)
            if not consumers and not left_out:
                raise ComparisonError("No failure matches: `dlq groups` lists what failed.")
            undrained = await undrained_count(settings, client, connection)
            others = sum(each.failures for each in consumers[_MOST_CONSUMERS:])
            sampling = Sampling(sample, seed, most_bytes=most_bytes)
            reading = _Reading(settings, client, connection, sampling)
            reports = []
            for number, each in enumerate(consumers[:_MOST_CONSUMERS], 1):
                reports.append(await reading.report(each))
                if progress is not None:
                    progress(number, min(len(consumers), _MOST_CONSUMERS))
    return WhyReport(tuple(reports), left_out + others, undrained)


class _Reading:
    def __init__(
        self, settings: Settings, client: Client, connection: Connection[Any], sampling: Sampling
    ) -> None:
        self._client, self._connection, self._sampling = client, connection, sampling
        self._redactor = settings.redactor(settings.rules)
        self._decoders = settings.decoders(settings.rules)

    async def report(self, consumer: FailingConsumer) -> ConsumerReport:
        """Read and compare the events of one consumer."""
        found, lost = await failing_events(self._client, consumer, self._sampling.most_bytes)
        about = (consumer.address, consumer.failures, lost)
        failing = [each.event for each in found]
        try:
            successes = await self._successes(consumer.address, self._around(failing))
            if len(successes) < LEAST_SUCCEEDING:
                successes = await self._successes(consumer.address, None)
        except NoSuccessesError as error:
            return ConsumerReport(*about, None, f"There is nothing to compare with: {error}.")
        if not failing:
            why = "The events of these failures have left their stream, or cannot be found in it."
            return ConsumerReport(*about, None, why)
        versions = [each.version for each in found]
        bad, good = self._with_versions(
            consumer.address, self._observed(failing), versions, self._observed(successes)
        )
        return ConsumerReport(*about, compare(bad, good), events=(bad, good))

    async def _successes(self, address: str, within: tuple[int, int] | None) -> list[StoredMessage]:
        sampling = replace(self._sampling, within=within)
        return await sampled_events(self._client, self._connection, address, sampling)

    def _around(self, failing: Sequence[StoredMessage]) -> tuple[int, int] | None:
        """The sequences of the failures, and as many before and after them."""
        if not failing:
            return None
        sequences = [each.sequence for each in failing]
        first, last = min(sequences), max(sequences)
        width = max(last - first, _LEAST_AROUND * self._sampling.count)
        return first - width, last + width

    def _observed(self, events: Sequence[StoredMessage]) -> list[Observation]:
        return observed(events, self._redactor, self._decoders)

    def _with_versions(
        self,
        address: str,
        failing: Sequence[Observation],
        versions: Sequence[str | None],
        succeeding: Sequence[Observation],
    ) -> tuple[list[Observation], list[Observation]]:
        """The same with the consumer's version, where that is known of both."""
        if not succeeding:
            return list(failing), []
        durable = address.partition("/")[2]
        version_at = versions_of(
            self._connection, durable, min(each.at for each in (*failing, *succeeding))
        )
        good = [each._replace(consumer_version=version_at(each.at)) for each in succeeding]
        bad = [
            each._replace(consumer_version=version)
            for each, version in zip(failing, versions, strict=True)
        ]
        # Else only failing events would have a version, which would look like a difference.
        if all(_known_share(each) >= _LEAST_KNOWN for each in (bad, good)):
            return bad, good
        return list(failing), list(succeeding)


def _known_share(events: Sequence[Observation]) -> float:
    return sum(each.consumer_version is not None for each in events) / len(events)
