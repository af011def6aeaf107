"""What a plan, a batch and its end look like."""

from pipelines.cli.output import console, print_table, safe
from pipelines.redrive.preview import Preview
from pipelines.redrive.run import RedriveReport

_MOST_ROWS = 20


def print_plan(shown: Preview) -> None:
    """What would be published, to whom, and what may come of it."""
    planned = shown.plan
    groups = planned.groups
    print_table(
        f"A redrive would publish {planned.count:,} events",
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
        [(r.failure_id, r.failed_at, r.subject, r.error_message) for r in shown.sample],
    )
    for edit in shown.edits:
        if edit.refused:
            console.print(f"{edit.failure_id} is refused: {safe(edit.refused)}.", soft_wrap=True)
            continue
        print_table(
            f"The edit, in {edit.failure_id}",
            ["what", "before", "after"],
            [(change.path, change.before, change.after) for change in edit.changes],
            note="Secrets are masked here; the events keep theirs.",
        )
    for fact in _facts(shown):
        console.print(fact, soft_wrap=True)


def _facts(shown: Preview) -> list[str]:
    count, payloads = shown.plan.count, shown.payloads
    facts = [
        (
            f"Of the raw dead letters {payloads['in_stream']:,} are in the stream,"
            f" {payloads['kept']:,} kept in Postgres, {payloads['gone']:,} gone."
        ),
        (
            f"Of {count:,}, about {shown.expected_successes:,.0f} will succeed, as far as earlier"
            " redrives tell."
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
                f"They go to {safe(shown.redirect_to)}, heard by {reached or 'nobody'}; other"
                " consumers than those that failed do not speak for these failures."
            ),
        ]
    for subject, consumers in shown.also_reached.items():
        facts.append(
            f"{safe(subject)} failed in a consumer without our code. A redrive reaches every"
            f" consumer of the subject: {safe(', '.join(consumers)) or 'there is none now'}."
        )
    return facts


def print_report(report: RedriveReport) -> None:
    """How a batch stands after a run, and what to do next."""
    held = report.outcomes.get("held", 0)
    if report.outcomes:
        print_table(
            f"Redrove {report.planned - held:,} in {report.seconds:.1f} s",
            ["outcome", "redrives"],
            report.outcomes.items(),
        )
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
