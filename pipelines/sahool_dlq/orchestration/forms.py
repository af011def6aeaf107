"""The forms of a redrive: what people fill in, and what it means.

No field may be None: Prefect shows such a one as a choice between its type and "None". What is left
empty, 0 or "any" says nothing.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection, duration

__all__ = ["Delivery", "Failures", "Group", "Name", "Reason"]

Group = Annotated[str, Field(min_length=4, description="The group's id, or how it begins.")]
Reason = Annotated[
    str, Field(min_length=3, description="Why; kept with the batch and in the audit.")
]
Name = Annotated[str, Field(min_length=1, description="Your name; self-declared.")]
Age = Literal["any", "1h", "24h", "7d", "30d"]


class Failures(BaseModel):
    """Which failures; all that is given must hold."""

    group: str = Field("", description="A failure group's id.")
    error_type: str = Field("", description="Class of the exception; its known subclasses, too.")
    service: str = Field("", description="The service that failed.")
    tenant: str = Field("", description="Only events of this tenant.")
    event_type: str = Field("", description="Last token of the event's subject.")
    subject: str = Field("", description="The event's subject, or a filter: sahool.analysis.*")
    failed_within: Age = Field("any", description="How long ago the consumer gave up, at most.")
    where: str = Field("", description="A condition over documented columns: data.crop = 'wheat'")
    failure_ids: list[str] = Field([], description="These failures, parked ones too.")
    limit: int = Field(10_000, ge=1, description="At most so many, the oldest.")

    def selection(self) -> Selection:
        """The same as jobs take it."""
        ago = duration(self.failed_within)
        return Selection(
            failure_ids=tuple(self.failure_ids),
            group_id=self.group or None,
            error_types=(self.error_type,) if self.error_type else (),
            service=self.service or None,
            tenant_id=self.tenant or None,
            event_type=self.event_type or None,
            subject=self.subject or None,
            since=datetime.now(UTC) - ago if ago else None,
            where=self.where or None,
            limit=self.limit,
        )


class Delivery(BaseModel):
    """How they go out, where that is not as it was."""

    redirect_to: str = Field("", description="This subject instead of the events' own.")
    addressed_to: str = Field(
        "", description="STREAM/CONSUMER that takes the place of the one that failed."
    )
    edit: dict[str, Any] = Field({}, description="JSON merge patch of the bodies.")
    per_second: float = Field(0, ge=0, description="Redrives a second; 0 leaves it to the budget.")
    oldest_event: Age = Field("any", description="Events that are older are left out and parked.")
    own_copy: bool = Field(
        False,
        description="Also events that their stream has lost, as their dead letters hold them.",
    )

    def order(self, requested_by: str, reason: str) -> Order:
        """The same as jobs take it, by the wish of a person."""
        oldest = duration(self.oldest_event)
        return Order(
            "manual",
            requested_by,
            reason,
            self.redirect_to or None,
            self.edit or None,
            self.per_second or None,
            self.addressed_to or None,
            oldest.total_seconds() if oldest else None,
            self.own_copy,
        )
