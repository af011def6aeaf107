"""The open failures with which a handler is tried, some of each group."""

from typing import Any, NamedTuple

from psycopg import Connection

from sahool_dlq.errors import TrialError
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.raw import PLACE, Place
from sahool_dlq.stores.postgres.addressees import ADDRESS

__all__ = [
    "OpenFailure",
    "consumers_of_handler",
    "open_failures",
    "open_of_handler",
    "open_of_selection",
]


class OpenFailure(NamedTuple):
    """A failure to try, with known facts."""

    place: Place
    group_id: str
    error_type: str
    service: str
    address: str | None  # `<stream>/<durable>` that handles it
    attempt: int  # of its last call
    max_retries: int
    open_count: int  # failures of its group that the condition takes


def open_of_selection(selection: Selection) -> tuple[str, list[Any]]:
    """The condition for a user's selection; given ids may have any status."""
    condition, values = selection.condition()
    return (condition if selection.failure_ids else f"is_open(f) AND {condition}"), values


def open_of_handler(connection: Connection[Any], handler: str) -> tuple[str, list[Any]]:
    """The condition for all open failures of a function with that name.

    Raises TrialError if functions of several services have that name.
    """
    rows = connection.execute(
        "SELECT DISTINCT service(f) FROM failed_events f WHERE is_open(f) AND f.handler = %s"
        " ORDER BY 1 LIMIT 3",
        [handler],
    ).fetchall()
    services = [service for (service,) in rows]
    if len(services) > 1:
        raise TrialError(
            f"A handler {handler} fails in {' and in '.join(services)}: choose one with --service."
        )
    return "is_open(f) AND f.handler = %s", [handler]


def consumers_of_handler(connection: Connection[Any], handler: str) -> list[str]:
    """The consumers with a failure, open or not, in a function with that name.

    None if functions of several services have that name.
    """
    rows = connection.execute(
        f"SELECT DISTINCT service(f), {ADDRESS} FROM failed_events f"  # noqa: S608  (our own names, bound values)
        f" WHERE f.handler = %s AND {ADDRESS} IS NOT NULL",
        [handler],
    ).fetchall()
    is_one = len({service for service, _ in rows}) == 1
    return sorted({address for _, address in rows}) if is_one else []


def open_failures(
    connection: Connection[Any], condition: tuple[str, list[Any]], of_each: int
) -> list[OpenFailure]:
    """The oldest `of_each` of each group."""
    sql, values = condition
    rows = connection.execute(
        f"SELECT * FROM (SELECT {PLACE}, coalesce(f.group_id, ''), f.error_type, service(f),"  # noqa: S608  (our own names, bound values)
        f" {ADDRESS}, f.retry_count, f.max_retries, count(*) OVER (PARTITION BY f.group_id),"
        " row_number() OVER (PARTITION BY f.group_id ORDER BY f.dlq_timestamp, f.id) AS nth"
        f" FROM failed_events f WHERE f.status <> 'superseded' AND {sql}) AS each_group"
        " WHERE nth <= %s ORDER BY nth",
        [*values, of_each],
    ).fetchall()
    width = len(Place._fields)
    found = [OpenFailure(Place(*row[:width]), *row[width:-1]) for row in rows]
    return sorted(found, key=lambda each: (-each.open_count, each.group_id))
