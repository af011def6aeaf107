"""The forms of a redrive: what people fill in, and what it means.

No field may be None: Prefect shows such a one as a choice between its type and "None". What is left
empty, 0 or "any" says nothing.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection, duration

__all__ = [
    "AsItWas",
    "Changed",
    "Failures",
    "Further",
    "Group",
    "Name",
    "NoFurther",
    "Reason",
    "selection",
]

Group = Annotated[str, Field(min_length=4)]
Reason = Annotated[str, Field(min_length=3)]
Name = Annotated[str, Field(min_length=1)]
Age = Literal["any", "1h", "24h", "7d", "30d"]


def _in_order(schema: dict[str, Any]) -> None:
    """Say where each field stands: the database forgets the order of keys."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position


class Failures(BaseModel):
    """Which failures; all that is given must hold."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_in_order)

    service: str = Field("", description="The service that failed.")
    error_type: str = Field("", description="Class of the exception; its known subclasses, too.")
    group: str = Field("", description="A failure group's id, or how it begins.")
    failed_within: Age = Field("any", description="How long ago the consumer gave up, at most.")


class NoFurther(BaseModel):
    """No more conditions."""

    model_config = ConfigDict(title="No further", extra="forbid")


class Further(BaseModel):
    """Further conditions; these must hold, too."""

    model_config = ConfigDict(title="Further", extra="forbid", json_schema_extra=_in_order)

    version: str = Field("", description="The version of the service that failed.")
    tenant: str = Field("", description="Only events of this tenant.")
    subject: str = Field("", description="The event's subject, or a filter: sahool.analysis.*")
    event_type: str = Field("", description="Last token of the event's subject.")
    where: str = Field("", description="A condition over documented columns: data.crop = 'wheat'")
    failure_ids: list[str] = Field([], description="These failures, parked ones too.")
    limit: int = Field(10_000, ge=1, description="At most so many, the oldest.")


def selection(failures: Failures, conditions: NoFurther | Further) -> Selection:
    """What a form says, as jobs take it."""
    ago = duration(failures.failed_within)
    further = conditions if isinstance(conditions, Further) else Further()
    return Selection(
        failure_ids=tuple(further.failure_ids),
        group_id=failures.group or None,
        error_types=(failures.error_type,) if failures.error_type else (),
        service=failures.service or None,
        version=further.version or None,
        tenant_id=further.tenant or None,
        event_type=further.event_type or None,
        subject=further.subject or None,
        since=datetime.now(UTC) - ago if ago else None,
        where=further.where or None,
        limit=further.limit,
    )


class AsItWas(BaseModel):
    """To the consumers that failed, as the events were."""

    model_config = ConfigDict(title="As it was", extra="forbid")

    def order(self, requested_by: str, reason: str) -> Order:
        """The same as jobs take it, by the wish of a person."""
        return Order("manual", requested_by, reason, own_copy=False)


class Changed(BaseModel):
    """To others, edited, slower, or without those that are too old."""

    model_config = ConfigDict(title="Changed", extra="forbid", json_schema_extra=_in_order)

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
