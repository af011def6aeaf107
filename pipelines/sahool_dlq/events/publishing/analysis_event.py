"""The message of an analysis service: its result, the receivers, and how to notify them."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, Field


class AnalysisEvent(BaseModel):
    """A finished analysis, or a recommended action; the keys are those of the message."""

    event_id: str = Field(default_factory=lambda: str(uuid4()))
    event_type: str  # such as ndvi.computed
    source_service: str  # who publishes it
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    tenant_id: str | None = None
    field_id: str | None = None
    farmer_id: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    action_template: dict[str, Any] | None = None
    notification_priority: str = "medium"  # low | medium | high | critical
    notification_channels: list[str] = Field(default_factory=lambda: ["in_app"])

    def to_json(self) -> str:
        """The event as published; NaN becomes null, because JSON has no NaN."""
        return self.model_dump_json()
