"""What a service imports instead of a consume loop of its own.

Needs nats-py and pydantic only.
"""

from pipelines.events.config import ConsumerContext, NATSConsumerConfig, ProcessingResult
from pipelines.events.consumer import NATSConsumer, start_consumer
from pipelines.events.publisher import NATSConfig, NATSPublisher

__all__ = [
    "ConsumerContext",
    "NATSConfig",
    "NATSConsumer",
    "NATSConsumerConfig",
    "NATSPublisher",
    "ProcessingResult",
    "start_consumer",
]
