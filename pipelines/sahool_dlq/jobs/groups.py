"""The complete job of a change of a failure group that people own.

A change is in the audit before it is in the log, and drained before its job returns.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.js.errors import Error as JetStreamError
from psycopg import Connection

from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.deadletter.envelope.encode import encode_group_event
from sahool_dlq.deadletter.group_changes import (
    ESCALATING,
    LABEL_LIMIT,
    MOST_LABELS,
    MOST_MORE,
    TEXT_LIMITS,
    Mute,
)
from sahool_dlq.errors import GroupError, ServerUnavailableError
from sahool_dlq.jobs.care import care_of, mute_left
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.redrive.choose.selection import duration
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.audit import audit
from sahool_dlq.stores.postgres.group_care import care_of_group

__all__ = ["GroupEdit", "carry_words", "change_group", "mute_from"]

_MORE = re.compile(r"([0-9]+)[ -]?more")


@dataclass(frozen=True, slots=True)
class GroupEdit:
    """What a person changes; None leaves a value, an empty one removes it."""

    owner: str | None = None
    note: str | None = None
    ticket: str | None = None
    labels: Sequence[str] | None = None
    mute: Mute | None = None
    is_unmuted: bool = False

    def as_json(self) -> dict[str, Any]:
        """The keys of its message."""
        said: dict[str, Any] = {
            name: text.strip() for name in TEXT_LIMITS if (text := getattr(self, name)) is not None
        }
        if self.labels is not None:
            said["labels"] = list(dict.fromkeys(filter(None, map(str.strip, self.labels))))
        if self.mute is not None or self.is_unmuted:
            said["mute"] = self.mute.as_json() if self.mute else None
        return said


def words_of(row: Mapping[str, Any]) -> GroupEdit:
    """What people said of the group in a row of `group_care`, to be said of another one."""
    return GroupEdit(
        owner=row["owner"] if row.get("owner_source") == "person" else None,
        note=row.get("note"),
        ticket=row.get("ticket"),
        labels=row.get("labels"),
        mute=mute_left(row),
    )


async def carry_words(
    settings: Settings, group_id: str, to: str, *, actor: str, reason: str
) -> dict[str, Any]:
    """Say of the group `to` what people said of `group_id`, and return its row afterwards.

    Values that are said only of `to` stay. Raises GroupError if nothing was said of `group_id`,
    else as `change_group`.
    """
    row = care_of(settings, group_id)
    words = words_of(row)
    if words == GroupEdit():
        raise GroupError(
            f"Nobody said anything of a group {group_id}: give all 16 digits of its id."
        )
    if reason.strip() and words.mute and row["mute_reason"]:
        reason = f"{reason}: {row['mute_reason']}"
    return await change_group(settings, to, words, actor=actor, reason=reason)


def mute_from(text: str, now: datetime) -> Mute:
    """The mute that a person wrote: `2026-12-24`, `3d`, `100 more` or `escalating`.

    Raises GroupError for anything else, and for a time that is over.
    """
    said = text.strip().lower()
    if said == ESCALATING:
        return Mute()
    if more := _MORE.fullmatch(said):
        if not 0 < int(more[1]) <= MOST_MORE:
            raise GroupError(f"A mute lasts for 1 to {MOST_MORE:,} more failures, not {more[1]}.")
        return Mute(more=int(more[1]))
    try:
        ahead = duration(said)
        until = now + ahead if ahead else datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise GroupError(
            f"{text[:40]!r} ends no mute: write a time (2026-12-24, 3d), '100 more' or escalating."
        ) from None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    if not now < until <= datetime(2200, 1, 1, tzinfo=UTC):
        raise GroupError(f"A mute must end after now and before 2200, not at {until:%Y-%m-%d}.")
    return Mute(until=until)


async def change_group(
    settings: Settings, group_id: str, edit: GroupEdit, *, actor: str, reason: str
) -> dict[str, Any]:
    """Change a group, through the log, and return its row of `group_care` afterwards.

    Raises GroupError without a reason, for a value that cannot be stored as it is, and for a mute
    that would not hold.
    """
    changes = _checked(settings, edit)
    if not reason.strip():
        raise GroupError("Give a reason: it is stored with the group and in the audit.")
    actor, reason = settings.masked(actor), settings.masked(reason)
    change_id, now = uuid.uuid4(), datetime.now(UTC)
    body = encode_group_event(
        group_id=group_id, at=now, actor=actor, reason=reason, changes=changes
    )
    with open_postgres(settings) as connection:
        _check_mute(connection, group_id, edit)
        audit(
            connection,
            "group.changed",
            actor=actor,
            reason=reason,
            batch_id=str(change_id),
            detail={"group": group_id, "changes": changes},
        )
        async with open_nats(settings, "dlq group") as client:
            try:
                await client.jetstream().publish(
                    settings.subjects.triage("group"),
                    body,
                    headers={"Nats-Msg-Id": str(change_id)},
                    timeout=10,
                )
            except (nats.errors.Error, JetStreamError) as error:
                raise ServerUnavailableError(
                    f"The log cannot be written ({error!r}), so nothing was changed: try again."
                ) from error
        await drain_log(settings)
    return care_of(settings, group_id)


def _checked(settings: Settings, edit: GroupEdit) -> dict[str, Any]:
    """The keys of the message; a note is masked, other values must stay as they are."""
    said = edit.as_json()
    if not said:
        raise GroupError(
            "Say what to change: --owner, --note, --ticket, --label, --mute, --unmute."
        )
    for name, limit in TEXT_LIMITS.items():
        if len(said.get(name, "")) > limit:
            raise GroupError(f"The {name} has more than {limit:,} characters: shorten it.")
    labels = said.get("labels", [])
    if len(labels) > MOST_LABELS or any(len(label) > LABEL_LIMIT for label in labels):
        raise GroupError(f"A group has at most {MOST_LABELS} labels of {LABEL_LIMIT} characters.")
    if (ticket := said.get("ticket")) and not re.fullmatch(r"https?://\S+", ticket):
        raise GroupError(f"The ticket {ticket[:40]!r} is no address: give its http(s):// link.")
    for name, text in [(n, said[n]) for n in ("owner", "ticket") if n in said] + [
        ("label", label) for label in labels
    ]:
        if settings.masked(text) != text:
            raise GroupError(
                f"The {name} looks like a secret or an address of a person, which is never stored:"
                " give another one."
            )
    if "note" in said:
        said["note"] = settings.masked(said["note"])
    return said


def _check_mute(connection: Connection[Any], group_id: str, edit: GroupEdit) -> None:
    row = care_of_group(connection, group_id)
    if edit.is_unmuted and row.get("muted_at") is None:
        raise GroupError(f"The group {group_id} is not muted.")
    if edit.mute == Mute():
        found = connection.execute(
            "SELECT FROM mart_failure_groups WHERE group_id = %s AND is_escalating", [group_id]
        )
        if found.rowcount:
            raise GroupError(
                f"The group {group_id} escalates now: mute it until a time or a number of failures."
            )
