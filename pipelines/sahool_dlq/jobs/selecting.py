"""A selection from what a person gave: texts become times and full ids."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sahool_dlq.jobs.redrive import known_group
from sahool_dlq.redrive.choose.selection import Selection, moment
from sahool_dlq.settings import Settings

__all__ = ["selected"]


def selected(settings: Settings, given: Mapping[str, Any]) -> Selection:
    """The selection with these fields; a group's id may be its beginning, times are texts.

    Raises as `known_group` and `moment` do.
    """
    fields, now = dict(given), datetime.now(UTC)
    if fields.get("group_id"):
        fields["group_id"] = known_group(settings, fields["group_id"])
    for name in ("since", "until"):
        fields[name] = moment(fields[name], now) if fields.get(name) else None
    return Selection(**fields)
