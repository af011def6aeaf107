"""`dlq show`."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from sahool_dlq.analysis.report.advice import (
    UNLIKELY,
    chance_in_words,
    state_in_words,
    what_failed,
)
from sahool_dlq.analysis.report.section import seconds_as_text
from sahool_dlq.analysis.report.trend import Trend
from sahool_dlq.cli.groups import STATES
from sahool_dlq.cli.output import cell, console, print_table, safe
from sahool_dlq.cli.verb import Answer, known_lake, verb
from sahool_dlq.deadletter.fingerprint.stack_trace import FrameRules, marked
from sahool_dlq.jobs.lookup import look_up
from sahool_dlq.settings import Settings


@verb
@click.argument("id_", metavar="ID")
def command(settings: Settings, id_: str) -> Answer[Any]:
    """Show a failure by its id (or its first digits), or a group and its latest failure.

    Prints the error, its state and history, the traceback with your own frames in bold, how likely
    a redrive is to work, and which commands to run next. Reads the lake.
    """
    now = datetime.now(UTC)
    known_lake(settings)
    found = look_up(settings, id_, now)
    failure, history, group = found.failure, found.history, found.group

    def show(_: object) -> None:
        if group:
            _print_group(group, found.trend, now)
            if said := found.group_history:
                print_table("What people said of the group", ["at", "what", "by", "reason"], said)
            console.print("[bold]Its latest failure[/bold]\n")
        _print_failure(failure, settings.rules.grouping.frames, is_alone=not group)
        _print_others(failure["also_said"])
        if history:
            print_table("History", ["at", "what", "by", "reason"], history)
        _print_next(failure, group)

    return Answer(found, show)


def _print_group(group: Mapping[str, Any], trend: Trend | None, now: datetime) -> None:
    ago = seconds_as_text(max((now - group["last_seen_at"]).total_seconds(), 0))
    state = safe(state_in_words(group))
    _head(f"[{STATES[group['state']]}]{state}[/]  [bold]{safe(what_failed(group))}[/bold]")
    by_hour = f"{group['failure_count_1h']:,} in the last hour"
    closed = f"{group['resolved_count']:,} resolved, {group['discarded_count']:,} discarded"
    if group["reopened_count"]:
        closed += f"; {group['reopened_count']:,} more were, and failed anew"
    parked = f", of which {group['parked_count']:,} parked" if group["parked_count"] else ""
    _facts(
        {
            "group": group["group_id"],
            "failures": f"{group['failure_count']:,} since {_at(group['first_seen_at'])}",
            "last": f"{ago} ago; {by_hour}, {group['failure_count_24h']:,} in 24 hours",
            "7 days": str(trend) if trend else "none",
            "open": f"{group['open_count']:,}{parked}",
            "closed": closed,
            "tenants": f"{group['tenant_count']:,}",
            "services": group["services"],
            "consumers": group["consumers"],
            "failed in": group["versions"],
            "resolved in": group["resolved_in_version"],
            "owner": group["owner"],
            "ticket": group["ticket"],
            "labels": group["labels"],
            "muted": group["muted"],
            "note": group["note"],
            "our frames": group["frames"],
            "cause": group["cause_id"],
            "a redrive works": chance_in_words(group),
        }
    )
    console.print()


def _print_failure(failure: Mapping[str, Any], rules: FrameRules, *, is_alone: bool) -> None:
    message = f"[bold]{safe(failure['error_type'])}[/bold]: {safe(failure['error_message'])}"
    _head(message) if is_alone else console.print(f"  {message}\n", soft_wrap=True)
    facts = {**failure, "regressed": _regressed(failure)}
    _facts({name: facts[name] for name in _FACTS if is_alone or name != "group_id"})
    for name in ("original_headers", "original_data"):
        _facts({name: _compact(failure[name])})
    if failure["stack_trace"]:
        console.print()
        _print_trace(failure["stack_trace"].rstrip(), rules)
    console.print()


def _print_others(others: Sequence[Mapping[str, Any]]) -> None:
    """Nobody can tell which of them is true: the first counts, and none is hidden."""
    if not others:
        return
    say = "other dead letter says" if len(others) == 1 else "other dead letters say"
    print_table(
        f"{len(others):,} {say} something different",
        ["at", "sequence", "service", "type", "message", "subject"],
        [[each[name] for name in _OTHERS] for each in others],
        note="It was published twice, or somebody else used its id. The one above came first, and"
        " a redrive uses that one. Compare both before you redrive it.",
    )


def _regressed(failure: Mapping[str, Any]) -> str | None:
    """What was said of it before it failed anew."""
    if failure["last_closed_at"] is None:
        return None
    return (
        f"opening {failure['opening']}: it failed again after it was closed"
        f" ({failure['last_closed_as']}) at {_at(failure['last_closed_at'])}"
    )


def _print_trace(trace: str, rules: FrameRules) -> None:
    """Our own frames, by the user's rules too, stand out; a frame's code goes with it."""
    style = ""
    for line, is_ours in marked(trace, rules):
        if is_ours is not None:
            style = "bold" if is_ours else "dim"
        elif not line.startswith("    "):
            style = ""
        text = safe(line)
        console.print(f"[{style}]{text}[/]" if style else text, soft_wrap=True)


def _print_next(failure: Mapping[str, Any], group: Mapping[str, Any] | None) -> None:
    commands: list[tuple[str, str]] = []
    if group:
        commands += _next_of_group(group)
    elif failure["status"] in ("pending", "parked"):
        commands.append((f"dlq redrive {failure['failure_id']}", "redrive this one"))
    if not group:
        commands.append((f"dlq show {failure['group_id']}", "the state of its group"))
    if failure["status"] == "superseded":
        commands.append((f"dlq show {failure['root_failure_id']}", "the case it belongs to"))
    if commands:
        console.print("[bold]Next[/bold]")
    for command, why in commands:
        console.print(f"  [cyan]{command}[/cyan]\n      {why}", soft_wrap=True)


def _next_of_group(group: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What fits it: a redrive where that may help, else the cause first, or an end to it."""
    redrive = f"dlq redrive --group {group['group_id']}"
    why = f"dlq why {group['group_id']}"
    close = f"dlq discard --group {group['group_id']} --reason '…'"
    unpark = f"dlq unpark --group {group['group_id']} --reason '…'"
    if not group["open_count"]:
        return []
    if group["open_count"] == group["parked_count"]:
        return [
            (unpark, "after the cause is fixed: allow redrives again"),
            (close, "or close them, if no action is needed"),
        ]
    if group["redrive_chance"] < UNLIKELY:
        return [
            (why, "what its events have that succeeding ones do not have"),
            (f"{redrive} --dry-run", "after the cause is fixed: show what a redrive would publish"),
            (close, "or close them, if no action is needed"),
        ]
    return [
        (f"{redrive} --dry-run", "what a redrive would publish"),
        (redrive, "redrive the group: 1, then 10, then all"),
    ]


def _head(text: str) -> None:
    console.print(text, soft_wrap=True)
    console.print()


def _facts(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value not in (None, ""):
            console.print(f"  [cyan]{name:<18}[/cyan] {cell(value)}", soft_wrap=True)


def _at(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _compact(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return text


_OTHERS = (
    *("published_at", "dlq_sequence", "service"),
    *("error_type", "error_message", "original_subject"),
)
_FACTS: Sequence[str] = (
    "failure_id", "group_id", "cause_id", "status", "regressed", "service", "consumer_name",
    "handed_to", "consumer_version", "handler", "event_type", "original_subject", "event_id",
    "source_service", "imported_from", "tenant_id", "field_id", "farmer_id", "dlq_reason",
    "retry_count", "redrive_count", "first_attempt_at", "dlq_timestamp", "closed_at", "cause",
    "parse_error", "body_format", "body_error",
)  # fmt: skip
