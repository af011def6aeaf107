"""The failures that a person or the schedule selects."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_type_hints

from sahool_dlq.deadletter.error_families import with_subclasses
from sahool_dlq.deadletter.ids import is_uuid
from sahool_dlq.errors import SelectionError
from sahool_dlq.redrive.choose.where import compile_where

__all__ = [
    "CONDITIONS",
    "EVERYTHING",
    "Condition",
    "Selection",
    "duration",
    "moment",
    "subject_pattern",
]

EVERYTHING = 2**62
"""A limit that is never reached."""

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class Condition:
    """Description, flag and SQL of one field of a `Selection`, for the command and the forms."""

    what: str  # description: the help of the flag and of the form's field
    flag: str | None  # None for the ids, which are arguments
    sql: str | None = None  # over `failed_events f`; None for `where`, which is compiled


@dataclass(frozen=True, slots=True)
class Selection:
    """What to redrive, or to decide about: all given conditions must hold.

    With `due_at` it is the schedule's selection at that time: of these, the failures that are worth
    it by the policy, and also failures with a requested redrive that is due, whatever their other
    properties are.
    """

    failure_ids: Annotated[
        tuple[str, ...],
        Condition("these failures, including parked ones", None, "f.id = ANY(%s::uuid[])"),
    ] = ()
    group_id: Annotated[
        str | None,
        Condition(
            "a failure group's id, or its beginning: see `dlq groups`",
            "--group",
            "f.group_id = %s",
        ),
    ] = None
    error_types: Annotated[
        tuple[str, ...],
        Condition(
            "class of the exception; includes its known subclasses",
            "--type",
            "f.error_type = ANY(%s)",
        ),
    ] = ()
    service: Annotated[
        str | None, Condition("the service that failed", "--service", "service(f) = %s")
    ] = None
    version: Annotated[
        str | None,
        Condition(
            "the version of the service that failed: see `dlq deploys`",
            "--version",
            "f.consumer_version = %s",
        ),
    ] = None
    tenant_id: Annotated[
        str | None, Condition("only events of this tenant", "--tenant", "f.tenant_id = %s")
    ] = None
    event_type: Annotated[
        str | None,
        Condition("last token of the event's subject", "--event-type", "f.event_type = %s"),
    ] = None
    subject: Annotated[
        str | None,
        Condition(
            "the event's subject, or a filter: sahool.analysis.*",
            "--subject",
            "f.original_subject ~ %s",
        ),
    ] = None
    since: Annotated[
        datetime | None,
        Condition(
            "failed at or after this time: 24h, 7d, 2026-03-01T12:00:00Z",
            "--since",
            "f.dlq_timestamp >= %s",
        ),
    ] = None
    until: Annotated[
        datetime | None,
        Condition("failed before this time", "--until", "f.dlq_timestamp < %s"),
    ] = None
    where: Annotated[
        str | None,
        Condition(
            "a condition over documented columns: \"redrive_count > 0 AND data.crop = 'wheat'\"",
            "--where",
        ),
    ] = None
    limit: int = 10_000  # maximum number; the oldest first
    due_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The given conditions."""
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in ("since", "until", "due_at"):
            values[name] = values[name] and values[name].isoformat()
        return {n: value for n, value in values.items() if value and value != EVERYTHING}

    def masked(self, mask: Callable[[str], str]) -> "Selection":
        """The same for storing: `mask` is applied to each free text."""
        return replace(
            self,
            error_types=tuple(map(mask, self.error_types)),
            service=self.service and mask(self.service),
            version=self.version and mask(self.version),
            event_type=self.event_type and mask(self.event_type),
            subject=self.subject and mask(self.subject),
            where=self.where and mask(self.where),
        )

    def condition(self) -> tuple[str, list[Any]]:
        """SQL over `failed_events f`, with its values.

        Raises SelectionError for a selection of everything or an invalid id, QueryError for a
        condition that is not valid.
        """
        conditions, values = self._conditions()
        if not conditions:
            *flags, last = (each.flag for each in CONDITIONS.values() if each.flag)
            raise SelectionError(
                f"Say what to redrive or decide on: failure ids, {', '.join(flags)} or {last}."
            )
        if self.due_at is not None:
            conditions.append("f.redrive_not_before IS NULL")  # else it has its own time
        return " AND ".join(conditions), values

    def _conditions(self) -> tuple[list[str], list[Any]]:
        for failure in self.failure_ids:
            if not is_uuid(failure):
                raise SelectionError(
                    f"{failure!r} is not a failure id: `dlq show GROUP` shows ids."
                )
        given = {name: getattr(self, name) for name in CONDITIONS}
        for name, value in given.items():
            if isinstance(value, str) and not value.strip():  # an unset variable of a script
                empty = (CONDITIONS[name].flag or name).removeprefix("--")
                raise SelectionError(
                    f"An empty {empty} selects nothing: say which, or leave it out."
                )
        given["failure_ids"] = list(self.failure_ids)
        given["error_types"] = with_subclasses(self.error_types)
        given["subject"] = self.subject and subject_pattern(self.subject)
        asked = [(sql, given[name]) for name, each in CONDITIONS.items() if (sql := each.sql)]
        conditions = [sql for sql, value in asked if value]
        values = [value for _, value in asked if value]
        if self.where:
            sql, more = compile_where(self.where)
            conditions.append(sql)
            values += more
        return conditions, values


CONDITIONS: dict[str, Condition] = {
    name: each
    for name, hint in get_type_hints(Selection, include_extras=True).items()
    for each in getattr(hint, "__metadata__", ())
}
"""The fields that a person can set, in their order."""


def subject_pattern(subject: str) -> str:
    """A NATS filter as a regular expression of PostgreSQL; raises SelectionError if it is none."""
    tokens = subject.split(".")
    if any(not token for token in tokens) or ">" in tokens[:-1]:
        raise SelectionError(
            f"{subject[:100]!r} is not a subject or filter such as sahool.analysis.*."
        )
    parts = {"*": r"[^.]+", ">": r".+"}
    return f"^{'[.]'.join(parts.get(token) or _literal(token) for token in tokens)}$"


def _literal(token: str) -> str:
    return re.sub(r"[^\w-]", lambda found: f"\\{found[0]}", token, flags=re.ASCII)


def duration(text: str) -> timedelta | None:
    """`24h`, `7d` or `30m`; None for anything else. Raises OverflowError if it is too long."""
    ago = _AGO.fullmatch(text.strip())
    return timedelta(seconds=float(ago[1]) * _UNITS[ago[2]]) if ago else None


def moment(text: str, now: datetime) -> datetime:
    """`24h`, `7d` or `30m` ago, or an ISO 8601 time, which is UTC by default.

    Raises SelectionError for anything else.
    """
    try:
        ago = duration(text)
        if ago is not None:
            return now - ago
        value = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise SelectionError(
            f"{text[:40]!r} is not a time: write 24h, 7d, or 2026-03-01T12:00:00Z."
        ) from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
