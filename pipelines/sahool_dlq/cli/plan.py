"""What a plan, a batch and its end look like."""

from collections.abc import Collection, Mapping
from textwrap import shorten

from sahool_dlq.alerts.text import quantity
from sahool_dlq.cli.output import console, print_table, safe
from sahool_dlq.deadletter.replays import REPLAY
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.edit.preview import EditPreview
from sahool_dlq.redrive.preview import Preview
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.redrive.reach import Reached

_MOST_ROWS = 20
_MOST_LETTERS = 80  # of a message
LIMIT_REACHED = "That is the --limit. The oldest come first; run it again for the rest."


def print_plan(shown: Preview) -> None:
    """What would be published, to whom, and what may come of it."""
    planned = shown.plan
    groups = planned.groups
    print_table(
        f"A redrive would publish {_published(shown)}",
        ["group", "error type", "service", "events"],
        [(g.group_id, g.error_type, g.service, g.count) for g in groups[:_MOST_ROWS]],
        note=f"… and {len(groups) - _MOST_ROWS:,} more groups" if len(groups) > _MOST_ROWS else "",
    )
    if not planned.count:
        return
    if len(planned.services) > 1:
        print_table("By service", ["service", "events"], planned.services.items())
    print_table(
        "The oldest of them",
        ["failure", "failed at", "subject", "message"],
        [
            (
                r.failure_id,
                r.failed_at,
                r.subject,
                shorten(r.error_message, _MOST_LETTERS, placeholder="…"),
            )
            for r in shown.sample
        ],
        drop=["subject", "failed at"],
    )
    _print_edits(shown.edits)
    for fact in _facts(shown):
        console.print(fact, soft_wrap=True)


def _print_edits(edits: EditPreview | None) -> None:
    """The difference that an edit makes, over all events."""
    if edits is None:
        return
    print_table(
        f"The edit, in {quantity(edits.events, 'events')}",
        ["what", "before", "after", "events"],
        edits.changes[:_MOST_ROWS],
        note="Secrets are masked in this output only, not in the events.",
    )
    if len(edits.changes) > _MOST_ROWS:
        console.print(f"… and {len(edits.changes) - _MOST_ROWS:,} more changes: --json")
    if edits.unchanged:
        console.print(f"{edits.unchanged:,} unchanged.")
    if edits.unread:
        console.print(f"Of {edits.unread:,} the event cannot be read, so it cannot be published.")
    for failure, why in list(edits.refused.items())[:_MOST_ROWS]:
        console.print(f"The edit cannot be applied in {failure}: {safe(why)}.", soft_wrap=True)
    if edits.refused:
        console.print(
            f"Nothing is published while the edit does not fit {len(edits.refused):,} of them."
        )


def _published(shown: Preview) -> str:
    left_out = sum(shown.refused.values()) + len(shown.reached.unreached_ids)
    count = shown.plan.count
    events = quantity(count, "events")
    return f"{count - left_out:,} of {events}" if left_out else events


def _facts(shown: Preview) -> list[str]:
    count, payloads = shown.plan.count, shown.payloads
    facts = [
        f"{number:,} would be refused and parked: {safe(reason)}."
        for reason, number in shown.refused.items()
    ]
    facts += unreached_facts(shown)
    if shown.repeated:
        facts.append(
            f"{shown.repeated:,} have more than one dead letter: published twice, or forged. The"
            " first counts, and `dlq show ID` says where another differs."
        )
    if shown.own_copies:
        facts.append(
            f"Of {shown.own_copies:,} the stream no longer has the event. --own-copy publishes the"
            " copies in their dead letters, whose content was chosen by the writers of these;"
            " without it they stay as they are."
        )
    if shown.plan.limit_reached:
        facts.append(LIMIT_REACHED)
    facts += [
        (
            f"Raw dead letters: {payloads['in_stream']:,} in the stream,"
            f" {payloads['kept']:,} kept in Postgres, {payloads['gone']:,} gone."
        ),
        (
            f"Of {count:,}, about {shown.expected_successes:,.0f} are expected to succeed,"
            f" judging by earlier redrives."
        ),
        pace_fact(shown.per_second, shown.seconds),
    ]
    if shown.redirect_to:
        reached = safe(", ".join(shown.also_reached.get(shown.redirect_to, [])))
        return [
            *facts,
            (
                f"They go to {safe(shown.redirect_to)}, received by {reached or 'nobody'}. Only a"
                f" success of the consumer that failed closes a failure."
            ),
        ]
    unknown = {subject for subject, found in shown.plan.addressees.items() if None in found}
    return facts + also_reached_facts(shown.also_reached, unknown)


def pace_fact(per_second: float, seconds: float) -> str:
    """How long publishing takes."""
    return (
        f"At {per_second:,.1f} a second publishing takes about {_duration(seconds)}, and each stage"
        " of a ramp waits for its outcomes."
    )


def also_reached_facts(
    also_reached: Mapping[str, list[str]], unknown: Collection[str] = ()
) -> list[str]:
    """Which other consumers get the events; `unknown` are subjects without a known addressee."""
    facts = []
    for subject, consumers in also_reached.items():
        who = (
            "Their dead letters do not say which consumer failed, so all of them receive the"
            " events again."
            if subject in unknown
            else "A consumer with this library skips events for another one. Any other handles them"
            " again."
        )
        facts.append(f"{safe(subject)} is heard by {safe(', '.join(consumers))} too. {who}")
    return facts


def unreached_facts(shown: Preview) -> list[str]:
    """Which failures would reach nobody, why, and what to do; and where that cannot be known."""
    return reach_facts(shown.reached, ", and stay pending")


def reach_facts(reached: Reached, then: str = "") -> list[str]:
    """The same; `then` is what becomes of them."""
    facts = []
    for each in reached.unreached:
        said = f"{each.count:,} would reach no consumer{then}: {safe(each.reason)}."
        if each.successors:
            ways = "  or  ".join(f"dlq redrive … --for {safe(name)}" for name in each.successors)
            said += f" Another consumer of the same service takes such events: {ways}"
        facts.append(said)
    facts += [
        f"Whether {count:,} would reach a consumer is unknown: {safe(doubt)}."
        for doubt, count in reached.doubts
    ]
    return facts


def abortion(report: RedriveReport) -> RedriveError | None:
    """The error of a batch that aborted itself."""
    if report.state != "aborted":
        return None
    return RedriveError(
        f"The batch {report.batch_id} was aborted because a group was stopped: find the cause"
        " before the next redrive."
    )


def print_report(report: RedriveReport) -> None:
    """How a batch stands after a run, and what to do next."""
    left = sum(report.outcomes.get(state, 0) for state in ("held", "cancelled"))
    if report.outcomes:
        done = f"{report.did} {report.planned - left:,} of {report.planned:,}"
        print_table(
            f"{done} in {report.seconds:.1f} s", ["outcome", "events"], report.outcomes.items()
        )
    for state, reasons in report.reasons.items():
        if state != "succeeded":
            for reason, count in reasons.items():
                console.print(f"{state} {count:,}: {safe(reason)}.", soft_wrap=True)
    for group, why in report.stopped_groups.items():
        what = "The replay" if group == REPLAY else f"Group {group}"
        console.print(f"{what} was stopped: {safe(why)}.", soft_wrap=True)
    if report.state == "paused":
        console.print(f"Paused. Go on:  dlq batches resume {report.batch_id}", soft_wrap=True)
    elif report.state == "awaiting_approval":
        console.print(
            f"{report.planned:,} events wait for an approval:"
            f"  dlq batches approve {report.batch_id}",
            soft_wrap=True,
        )
    elif report.state == "cancelled":
        console.print("The batch was cancelled; what was not published stays pending.")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
