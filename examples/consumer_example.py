"""A service that fails in four ways, and what becomes of each.

NATS_URL=nats://localhost:4222 python consumer_example.py --samples

It waters fields: for each NDVI that the satellites computed it asks the weather forecast, then
recommends an amount of water.

field-1   succeeds
field-2   the forecast does not answer at first: retried, then succeeds
field-3   says no number where one must be: no retry would help, dead-lettered at once
field-4   is a bug that nobody thought of: retried, then dead-lettered with its traceback
field-5   is not ours: the handler gives it up, and says why

Ctrl-C or SIGTERM ends it in order.
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
    # A forecast that is away comes back: wait for it longer than for anything else.
    policies=(
        RetryPolicy(error_type="ConnectionError", max_retries=8, max_retry_delay_seconds=60),
    ),
)


class Ndvi(BaseModel):
    """What the handler needs of an event; anything else is a ValidationError."""

    mean: float
    hectares: float


class NdviComputed(BaseModel):
    """A field's vegetation index, as the satellite service publishes it."""

    field_id: str
    data: Ndvi


async def handle(context: ConsumerContext) -> ProcessingResult | Retry | DeadLetter:
    """Recommend an amount of water for a field."""
    # What this raises is fatal by default: dead-lettered at once, as a validation_error.
    event = NdviComputed.model_validate_json(context.data)
    if event.field_id == "field-5":
        return DeadLetter(reason="field-5 was sold")
    try:
        rain = await forecast(event.field_id, context.attempt)
    except ConnectionError as error:
        # Hand over what you catch: it is what the dead letter will say, should no retry help.
        return Retry(reason="no forecast", error=error)
    # What is raised here is retried, then dead-lettered with its whole traceback.
    water = (1 - event.data.mean) * 40 / event.data.hectares - rain
    logger.info("%s: %.0f l per square metre", event.field_id, max(water, 0))
    return ProcessingResult.SUCCESS


async def forecast(field: str, attempt: int) -> float:
    """Expected rain in millimetres; in reality a call of another service."""
    if field == "field-2" and attempt == 0:
        raise ConnectionError("the forecast service does not answer")
    return 3.0


async def publish_samples() -> None:
    """What a satellite service would publish."""
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
