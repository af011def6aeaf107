"""`--as-of`: how things stood at another time than now, which a lake that no longer grows needs."""

from datetime import UTC, datetime

import click

from sahool_dlq.errors import UnknownNameError
from sahool_dlq.jobs.lake_views import newest_at
from sahool_dlq.settings import Settings

__all__ = ["AS_OF", "moment"]

_NEWEST = "newest"

AS_OF = click.option(
    "--as-of",
    metavar="TIME|newest",
    help="how things stood then (ISO 8601, else UTC); newest: when the lake's newest message came",
)


def moment(settings: Settings, as_of: str | None) -> datetime:
    """The time that `--as-of` names, or now; raises UsageError for what is none."""
    if as_of is None:
        return datetime.now(UTC)
    if as_of == _NEWEST:
        newest = newest_at(settings)
        if newest is None:
            raise UnknownNameError("The lake has no message yet: leave out --as-of.")
        return newest
    try:
        at = datetime.fromisoformat(as_of)
    except ValueError:
        raise click.UsageError(
            f"--as-of {as_of!r} is no time: write 2026-03-04T15:20, or newest."
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
