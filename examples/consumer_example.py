"""A service with one success and four kinds of failure, and what happens to each event.

NATS_URL=nats://localhost:4222 python consumer_example.py --samples

The service recommends an amount of water for a field. Each event has the vegetation index (NDVI) of
a field; the handler also needs a weather forecast.

field-1   succeeds
field-2   the forecast does not answer at first: retried, then succeeds
field-3   the event has a text instead of a number: a retry would not help, dead-lettered at once
field-4   a bug in the handler: retried, then dead-lettered with its traceback
field-5   the field was sold: the handler gives the event up, with the reason

Ctrl-C or SIGTERM stops the service in order.
"""

import asyncio
import logging
import os
import sys

from pydantic import BaseModel

from sahool_dlq.events import (
    ConsumerContext,
    DeadLetter,
    NATSConsumer,
    NATSConsumerConfig,
    ProcessingResult,
    Retry,
    RetryPolicy,
    publish_analysis_completed,
)

logger = logging.getLogger("irrigation")

CONFIG = NATSConsumerConfig(
    servers=[os.environ.get("NATS_URL", "nats://localhost:4222")],
    name="irrigation-service",
    max_retries=2,
    retry_delay_seconds=1,
    # A forecast service that is down comes back: retry this error more often than others.
    policies=(
        RetryPolicy(error_type="ConnectionError", max_retries=8, max_retry_delay_seconds=60),
    ),
)


class Ndvi(BaseModel):
    """The data that the handler needs; without them the event is invalid (ValidationError)."""

    mean: float
    hectares: float


class NdviComputed(BaseModel):
    """A field's vegetation index, as the satellite service publishes it."""

    field_id: str
    data: Ndvi


async def handle(context: ConsumerContext) -> ProcessingResult | Retry | DeadLetter:
    """Recommend an amount of water for a field."""
    # A ValidationError is fatal by default: the event is dead-lettered at once.
    event = NdviComputed.model_validate_json(context.data)
    if event.field_id == "field-5":
        return DeadLetter(reason="field-5 was sold")
    try:
        rain = await forecast(event.field_id, context.attempt)
    except ConnectionError as error:
        # Pass on the error: if no retry helps, the dead letter contains it.
        return Retry(reason="no forecast", error=error)
    # If this raises, the event is retried, then dead-lettered with the whole traceback.
    water = (1 - event.data.mean) * 40 / event.data.hectares - rain
    logger.info("%s: %.0f l per square metre", event.field_id, max(water, 0))
    return ProcessingResult.SUCCESS


async def forecast(field: str, attempt: int) -> float:
    """Expected rain in millimetres; in reality a call of another service."""
    if field == "field-2" and attempt == 0:
        raise ConnectionError("the forecast service does not answer")
    return 3.0


async def publish_samples() -> None:
    """Publish events as a satellite service would."""
    samples: dict[str, dict[str, object]] = {
        "field-1": {"mean": 0.71, "hectares": 2.5},
        "field-2": {"mean": 0.54, "hectares": 4.0},
        "field-3": {"mean": "cloudy", "hectares": 1.2},
        "field-4": {"mean": 0.33, "hectares": 0},
        "field-5": {"mean": 0.62, "hectares": 3.1},
    }
    for field, data in samples.items():
        await publish_analysis_completed("example.ndvi_computed", "satellite-service", field, data)


async def main() -> None:
    """Consume until Ctrl-C or SIGTERM."""
    if "--samples" in sys.argv:
        await publish_samples()
    consumer = NATSConsumer(CONFIG)
    if not await consumer.connect():
        sys.exit(1)  # the reason is in the log
    await consumer.subscribe(handle, subject="sahool.analysis.example_ndvi_computed")
    await consumer.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    asyncio.run(main())
