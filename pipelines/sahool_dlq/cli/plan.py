"""What a plan, a batch and its end look like."""

from textwrap import shorten

from sahool_dlq.alerts.text import quantity
from sahool_dlq.cli.output import console, print_table, safe
from sahool_dlq.redrive.edit import Change
from sahool_dlq.redrive.preview import EditedSample, Preview
from sahool_dlq.redrive.publish.ramp import RedriveReport

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


def _print_edits(edits: list[EditedSample]) -> None:
    """The difference that an edit makes, once for events in which it is the same."""
    alike: dict[tuple[str | None, tuple[Change, ...]], list[str]] = {}
    for edit in edits:
        alike.setdefault((edit.refused, tuple(edit.changes)), []).append(edit.failure_id)
    for (refused, changes), ids in alike.items():
        where = ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} of the others above"
        if refused:
            console.print(
                f"The edit cannot be applied in {where}: {safe(refused)}.", soft_wrap=True
            )
            continue
        print_table(
            f"The edit, in {where}",
            ["what", "before", "after"],
            changes,
            note="Secrets are masked in this output only, not in the events.",
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
        (
            f"At {shown.per_second:,.1f} a second publishing takes about"
            f" {_duration(shown.seconds)}, and each stage of a ramp waits for its outcomes."
        ),
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
    for subject, consumers in shown.also_reached.items():
        who = (
            "Their dead letters do not say which consumer failed, so all of them receive the"
            " events again."
            if None in shown.plan.addressees[subject]
            else "A consumer with this library skips events for another one. Any other handles them"
            " again."
        )
        facts.append(f"{safe(subject)} is heard by {safe(', '.join(consumers))} too. {who}")
    return facts


def unreached_facts(shown: Preview) -> list[str]:
    """Which failures would reach nobody, why, and what to do; and where that cannot be known."""
    facts = []
    for each in shown.reached.unreached:
        said = f"{each.count:,} would reach no consumer, and stay pending: {safe(each.reason)}."
        if each.successors:
            ways = "  or  ".join(f"dlq redrive … --for {safe(name)}" for name in each.successors)
            said += f" Another consumer of the same service takes such events: {ways}"
        facts.append(said)
    facts += [
        f"Whether {count:,} would reach a consumer is unknown: {safe(doubt)}."
        for doubt, count in shown.reached.doubts
    ]
    return facts


def print_report(report: RedriveReport) -> None:
    """How a batch stands after a run, and what to do next."""
    left = sum(report.outcomes.get(state, 0) for state in ("held", "cancelled"))
    if report.outcomes:
        print_table(
            f"Redrove {report.planned - left:,} of {report.planned:,} in {report.seconds:.1f} s",
            ["outcome", "redrives"],
            report.outcomes.items(),
        )
    for state, reasons in report.reasons.items():
        if state != "succeeded":
            for reason, count in reasons.items():
                console.print(f"{state} {count:,}: {safe(reason)}.", soft_wrap=True)
    for group, why in report.stopped_groups.items():
        console.print(f"Group {group} was stopped: {safe(why)}.", soft_wrap=True)
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
