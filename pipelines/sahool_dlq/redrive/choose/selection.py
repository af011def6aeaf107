"""Which failures a person, or the schedule, speaks of."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sahool_dlq.deadletter.error_families import with_subclasses
from sahool_dlq.deadletter.ids import is_uuid
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.choose.where import compile_where
from sahool_dlq.stores.postgres.addressees import SERVICE

__all__ = ["EVERYTHING", "Selection", "duration", "moment"]

EVERYTHING = 2**62
"""A limit that nobody reaches."""

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class Selection:
    """What to redrive, or to decide on: every condition that is given must hold.

    With `due_at` it is what the schedule looks at then: of these what the policy says pays, and
    besides the failures whose redrive was asked for and is due, whatever else they are.
    """

    failure_ids: tuple[str, ...] = ()
    group_id: str | None = None
    error_types: tuple[str, ...] = ()  # with their known subclasses
    service: str | None = None
    tenant_id: str | None = None
    event_type: str | None = None
    subject: str | None = None  # of the event; a filter with * and >
    since: datetime | None = None  # became a dead letter then or later
    until: datetime | None = None  # … and before then
    where: str | None = None  # a condition over documented columns, see `where`
    limit: int = 10_000  # the oldest so many
    due_at: datetime | None = None
    version: str | None = None  # of the service that failed

    def as_json(self) -> dict[str, Any]:
        """The conditions that were given."""
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in ("since", "until", "due_at"):
            values[name] = values[name] and values[name].isoformat()
        return {n: value for n, value in values.items() if value and value != EVERYTHING}

    def masked(self, mask: Callable[[str], str]) -> "Selection":
        """The same as it may be kept: `mask` is given each free text of it."""
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

        Raises RedriveError for a selection of everything or an id that is none, QueryError for a
        condition that is not valid.
        """
        conditions, values = self._conditions()
        if not conditions:
            raise RedriveError(
                "Say what to redrive or decide on: failure ids, --group, --type, --service,"
                " --version, --tenant, --event-type, --subject, --since, --until or --where."
            )
        if self.due_at is not None:
            conditions.append("f.redrive_not_before IS NULL")  # else it has a time of its own
        return " AND ".join(conditions), values

    def _conditions(self) -> tuple[list[str], list[Any]]:
        for failure in self.failure_ids:
            if not is_uuid(failure):
                raise RedriveError(f"{failure!r} is not a failure id: `dlq show GROUP` shows ids.")
        for name in (
            "group_id",
            "service",
            "version",
            "tenant_id",
            "event_type",
            "subject",
            "where",
        ):
            text = getattr(self, name)
            if text is not None and not text.strip():  # a variable of a script that was not set
                flag = name.removesuffix("_id").replace("_", "-")
                raise RedriveError(f"An empty {flag} selects nothing: say which, or leave it out.")
        given: list[tuple[str, Any]] = [
            ("f.id = ANY(%s::uuid[])", list(self.failure_ids)),
            ("f.error_type = ANY(%s)", with_subclasses(self.error_types)),
            ("f.group_id = %s", self.group_id),
            (f"{SERVICE} = %s", self.service),
            ("f.consumer_version = %s", self.version),
            ("f.tenant_id = %s", self.tenant_id),
            ("f.event_type = %s", self.event_type),
            ("f.original_subject ~ %s", self.subject and _pattern(self.subject)),
            ("f.dlq_timestamp >= %s", self.since),
            ("f.dlq_timestamp < %s", self.until),
        ]
        conditions = [sql for sql, value in given if value]
        values = [value for _, value in given if value]
        if self.where:
            sql, more = compile_where(self.where)
            conditions.append(sql)
            values += more
        return conditions, values


def _pattern(subject: str) -> str:
    """A NATS filter as a regular expression of PostgreSQL."""
    tokens = subject.split(".")
    if any(not token for token in tokens) or ">" in tokens[:-1]:
        raise RedriveError(
            f"{subject[:100]!r} is not a subject or filter such as sahool.analysis.*."
        )
    parts = {"*": r"[^.]+", ">": r".+"}
    return f"^{'[.]'.join(parts.get(token) or _literal(token) for token in tokens)}$"


def _literal(token: str) -> str:
    return re.sub(r"[^\w-]", lambda found: f"\\{found[0]}", token, flags=re.ASCII)


def duration(text: str) -> timedelta | None:
    """`24h`, `7d` or `30m`; None for anything else. Raises OverflowError where it is too long."""
    ago = _AGO.fullmatch(text.strip())
    return timedelta(seconds=float(ago[1]) * _UNITS[ago[2]]) if ago else None


def moment(text: str, now: datetime) -> datetime:
    """`24h`, `7d` or `30m` ago, or a time in ISO 8601, which is UTC unless it says otherwise.

    Raises RedriveError for anything else.
    """
    try:
        ago = duration(text)
        if ago is not None:
            return now - ago
        value = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise RedriveError(
            f"{text[:40]!r} is not a time: write 24h, 7d, or 2026-03-01T12:00:00Z."
        ) from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
