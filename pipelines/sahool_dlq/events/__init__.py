"""The library for services: it replaces their own consume loop. Needs only nats-py and pydantic.
Names are imported on first use, and importing this package never fails: if a package is missing,
using the name says what to install, and the flags say so in advance. To add a name, add it to the
three lists below; a test compares them.
"""

from typing import TYPE_CHECKING

from sahool_dlq.lazy import is_installed, lazy_getattr

if TYPE_CHECKING:
    from sahool_dlq.events.beside.faststream import faststream_dead_letters
    from sahool_dlq.events.beside.handlers import dead_letter, with_dead_letters
    from sahool_dlq.events.beside.taskiq import taskiq_dead_letters
    from sahool_dlq.events.config import ConsumerContext, NATSConsumerConfig, RetryPolicy
    from sahool_dlq.events.consumer import NATSConsumer, start_consumer
    from sahool_dlq.events.failed_event import FailedEvent
    from sahool_dlq.events.metrics import consumer_metrics
    from sahool_dlq.events.models import (
        CREATE_TABLE_SQL,
        FailedEventModel,
        failures_by_error_type,
        failures_by_service,
        pending_retries,
        recent_failures,
    )
    from sahool_dlq.events.monitor.consumer import (
        DLQConsumer,
        default_dlq_handler,
        start_dlq_consumer,
    )
    from sahool_dlq.events.monitor.dlq_event import DLQEvent
    from sahool_dlq.events.monitor.triage import DLQAction, DLQConsumerConfig
    from sahool_dlq.events.publishing.analysis_event import AnalysisEvent
    from sahool_dlq.events.publishing.publisher import NATSConfig, NATSPublisher
    from sahool_dlq.events.publishing.shared import (
        get_publisher,
        publish_analysis_completed,
        publish_analysis_completed_sync,
    )
    from sahool_dlq.events.results import DeadLetter, ProcessingResult, Retry
else:
    __getattr__ = lazy_getattr(
        __name__,
        {
            "publishing.analysis_event": ["AnalysisEvent"],
            "beside.faststream": ["faststream_dead_letters"],
            "beside.handlers": ["dead_letter", "with_dead_letters"],
            "beside.taskiq": ["taskiq_dead_letters"],
            "config": ["ConsumerContext", "NATSConsumerConfig", "RetryPolicy"],
            "consumer": ["NATSConsumer", "start_consumer"],
            "monitor.dlq_event": ["DLQEvent"],
            "monitor.consumer": ["DLQConsumer", "default_dlq_handler", "start_dlq_consumer"],
            "failed_event": ["FailedEvent"],
            "metrics": ["consumer_metrics"],
            "models": [
                "CREATE_TABLE_SQL",
                "FailedEventModel",
                "failures_by_error_type",
                "failures_by_service",
                "pending_retries",
                "recent_failures",
            ],
            "publishing.publisher": ["NATSConfig", "NATSPublisher"],
            "results": ["DeadLetter", "ProcessingResult", "Retry"],
            "publishing.shared": [
                "get_publisher",
                "publish_analysis_completed",
                "publish_analysis_completed_sync",
            ],
            "monitor.triage": ["DLQAction", "DLQConsumerConfig"],
        },
    )

NATS_CONSUMER_AVAILABLE = is_installed("nats", "pydantic")
NATS_PUBLISHER_AVAILABLE = NATS_CONSUMER_AVAILABLE
DLQ_CONSUMER_AVAILABLE = NATS_CONSUMER_AVAILABLE
DLQ_MODELS_AVAILABLE = is_installed("sqlalchemy")
METRICS_AVAILABLE = is_installed("prometheus_client")

# As older services know them.
NATS_AVAILABLE = NATS_PUBLISHER_AVAILABLE
CONSUMER_AVAILABLE = NATS_CONSUMER_AVAILABLE
DLQ_AVAILABLE = DLQ_CONSUMER_AVAILABLE

__all__ = [
    "CONSUMER_AVAILABLE",
    "CREATE_TABLE_SQL",
    "DLQ_AVAILABLE",
    "DLQ_CONSUMER_AVAILABLE",
    "DLQ_MODELS_AVAILABLE",
    "METRICS_AVAILABLE",
    "NATS_AVAILABLE",
    "NATS_CONSUMER_AVAILABLE",
    "NATS_PUBLISHER_AVAILABLE",
    "AnalysisEvent",
    "ConsumerContext",
    "DLQAction",
    "DLQConsumer",
    "DLQConsumerConfig",
    "DLQEvent",
    "DeadLetter",
    "FailedEvent",
    "FailedEventModel",
    "NATSConfig",
    "NATSConsumer",
    "NATSConsumerConfig",
    "NATSPublisher",
    "ProcessingResult",
    "Retry",
    "RetryPolicy",
    "consumer_metrics",
    "dead_letter",
    "default_dlq_handler",
    "failures_by_error_type",
    "failures_by_service",
    "faststream_dead_letters",
    "get_publisher",
    "pending_retries",
    "publish_analysis_completed",
    "publish_analysis_completed_sync",
    "recent_failures",
    "start_consumer",
    "start_dlq_consumer",
    "taskiq_dead_letters",
    "with_dead_letters",
]
