"""The forms of redrives and replays: their fields and their meaning.

No field may be None, because Prefect shows such a field as a choice between its type and "None". An
empty value, 0 or "any" means: not given.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import CONDITIONS, Selection, duration
from sahool_dlq.redrive.edit.patch import Edit
from sahool_dlq.redrive.replay.selection import ReplaySelection, stream_position

__all__ = [
    "AsItWas",
    "Changed",
    "Events",
    "Failures",
    "Further",
    "Group",
    "Name",
    "NoFurther",
    "Reason",
    "replay_selection",
    "selection",
]

Group = Annotated[str, Field(min_length=4)]
Reason = Annotated[str, Field(min_length=3)]
Name = Annotated[str, Field(min_length=1)]
Age = Literal["any", "1h", "24h", "7d", "30d"]


def _in_order(schema: dict[str, Any]) -> None:
    """Set the position of each field, because the database does not keep the order of keys."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position


def _given(name: str, empty: Any = "") -> Any:
    """An optional field with the description of the selection's condition `name`."""
    what = CONDITIONS[name].what
    return Field(empty, description=what[0].upper() + what[1:])


class Failures(BaseModel):
    """The selected failures; all given conditions must hold."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_in_order)

    service: str = _given("service")
    error_type: str = _given("error_types")
    group: str = _given("group_id")
    failed_within: Age = Field("any", description="Maximum age: time since the consumer gave up.")


class NoFurther(BaseModel):
    """No more conditions."""

    model_config = ConfigDict(title="No further", extra="forbid")


class Further(BaseModel):
    """Further conditions, which must also hold."""

    model_config = ConfigDict(title="Further", extra="forbid", json_schema_extra=_in_order)

    version: str = _given("version")
    tenant: str = _given("tenant_id")
    subject: str = _given("subject")
    event_type: str = _given("event_type")
    where: str = _given("where")
    failure_ids: list[str] = _given("failure_ids", [])
    limit: int = Field(Selection().limit, ge=1, description="Maximum number; the oldest first.")


def selection(failures: Failures, conditions: NoFurther | Further) -> Selection:
    """The selection of a form, for jobs."""
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


class Events(BaseModel):
    """The events of a replay; all given conditions must hold, and one is needed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_in_order)

    since: str = Field(
        "",
        description="Stored at or after this: 24h, 7d, 2026-03-01T12:00:00Z, or a sequence:"
        " seq:120000.",
    )
    until: str = Field("", description="Stored before this.")
    subject: str = Field("", description="The event's subject, or a filter: sahool.analysis.*.")
    where: str = Field("", description="A condition over the event: data.crop = 'wheat'.")
    limit: int = Field(Selection().limit, ge=1, description="Maximum number; the oldest first.")
    per_second: float = Field(0, ge=0, description="Events per second; 0: the budget decides.")


def replay_selection(consumer: str, events: Events) -> ReplaySelection:
    """The selection of a form, for jobs."""
    now = datetime.now(UTC)
    return ReplaySelection(
        consumer,
        stream_position(events.since, now) if events.since else None,
        stream_position(events.until, now) if events.until else None,
        events.subject or None,
        events.where or None,
        events.limit,
    )


class AsItWas(BaseModel):
    """To the consumers that failed, with the original events."""

    model_config = ConfigDict(title="As it was", extra="forbid")

    def order(self, requested_by: str, reason: str) -> Order:
        """The same as an order for jobs, requested by a person."""
        return Order("manual", requested_by, reason, own_copy=False)


class Changed(BaseModel):
    """To other consumers, edited, slower, or without old events."""

    model_config = ConfigDict(title="Changed", extra="forbid", json_schema_extra=_in_order)

    redirect_to: str = Field("", description="Publish to this subject instead of the original one.")
    addressed_to: str = Field(
        "", description="STREAM/CONSUMER to address instead of the one that failed."
    )
    edit: dict[str, Any] = Field({}, description="JSON merge patch of the bodies.")
    headers: dict[str, Any] = Field(
        {}, description="New values by header; null removes one, an array gives it several values."
    )
    per_second: float = Field(0, ge=0, description="Redrives per second; 0: the budget decides.")
    oldest_event: Age = Field(
        "any", description="Maximum age; older events are not published and are parked."
    )
    own_copy: bool = Field(
        False,
        description="Publish the dead letter's copy of events that their stream no longer has.",
    )

    def order(self, requested_by: str, reason: str) -> Order:
        """The same as an order for jobs, requested by a person."""
        oldest = duration(self.oldest_event)
        return Order(
            "manual",
            requested_by,
            reason,
            self.redirect_to or None,
            Edit(self.edit or None, self.headers or None).stored(),
            self.per_second or None,
            self.addressed_to or None,
            oldest.total_seconds() if oldest else None,
            self.own_copy,
        )
