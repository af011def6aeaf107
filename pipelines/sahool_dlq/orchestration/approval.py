"""A large redrive waits for a person who has seen its plan; nothing else is delayed."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

from prefect import get_client
from prefect.context import FlowRunContext
from prefect.flow_runs import asuspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from sahool_dlq.alerts.text import quantity
from sahool_dlq.analysis.report.section import Section, as_markdown_table, escaped, seconds_as_text
from sahool_dlq.orchestration.logs import call_the_wait_no_error
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.redrive.replay.plan import LEFT_OUT
from sahool_dlq.redrive.replay.preview import ReplayPreview

PATIENCE = timedelta(days=7)
_LABEL = "dlq.batch"
_MOST_GROUPS, _MOST_SAMPLES, _MOST_CHANGES = 20, 3, 20
_LONGEST = 120  # characters of a message


class Approval(RunInput):
    """The fields of the form."""

    approve: bool = Field(
        False,
        description=(
            "On: the events above are published. Off: nothing is published, and the batch ends."
        ),
    )
    decided_by: Annotated[str, Field(min_length=1)] = Field(
        description="Your name; it is not checked."
    )
    comment: str = Field("", description="Reason; stored with the batch.")


async def ask(shown: str) -> Approval:
    """Suspend the run until somebody has decided about the plan, shown in Markdown.

    The process ends and frees its slot; the resumed run starts from the beginning and gets the
    answer here.
    """
    form = Approval.with_initial_data(description=shown)
    call_the_wait_no_error()
    seconds = int(PATIENCE.total_seconds())
    return await asuspend_flow_run(wait_for_input=form, timeout=seconds, key="approval")


async def batch_of_this_run() -> str | None:
    """The batch that this run stored before it was suspended or crashed."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return str(run.labels[_LABEL]) if run is not None and _LABEL in run.labels else None


async def remember_batch(batch_id: str) -> None:
    """Store the batch for when this run starts again."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        async with get_client() as client:
            await client.update_flow_run_labels(context.flow_run.id, {_LABEL: batch_id})


def plan_as_markdown(shown: Mapping[str, Any], batch: Batch | None = None) -> str:
    """A plan (`Preview.as_dict`) for the person who approves its batch."""
    groups = shown["groups"]
    counts = quantity(shown["planned"], "redrives"), quantity(len(groups), "groups")
    asked = ""
    if batch is not None:
        asked = f", requested by **{escaped(batch.requested_by)}**: {escaped(batch.reason)}"
    lines = [f"**{counts[0]} of {counts[1]}**{asked}", ""]
    # Lists, for a dialog has no room for a table.
    lines += [
        f"- {group['count']:,} {escaped(group['error_type'])} in {escaped(group['service'])}"
        for group in groups[:_MOST_GROUPS]
    ]
    if len(groups) > _MOST_GROUPS:
        lines.append(f"- and {len(groups) - _MOST_GROUPS:,} more groups")
    expected, time = shown["expected_successes"], seconds_as_text(shown["seconds"])
    ramp = "Each group ramps 1, 10, all, and stops if nothing succeeds."
    lines += ["", f"About {expected:,.0f} may succeed. Publishing takes about {time}. {ramp}", ""]
    for reason, count in shown["refused"].items():
        lines += [f"{count:,} would be refused and parked: {escaped(reason)}.", ""]
    lines += _unreached(shown["unreached"])
    if shown["repeated"]:
        said = "have more than one dead letter; the first one counts: `dlq show ID`"
        lines += [f"{shown['repeated']:,} {said}.", ""]
    if shown["redirect_to"]:
        lines += [f"They go to {escaped(shown['redirect_to'])} instead of their own subjects.", ""]
    if gone := shown["payloads"]["gone"]:
        lines += [f"The original bytes of {gone:,} are gone: these cannot be published.", ""]
    messages = [row["error_message"][:_LONGEST] for row in shown["sample"]]
    lines += ["The errors of the oldest:", ""]
    lines += [
        f"- {escaped(message or '(nothing)')}"
        for message in list(dict.fromkeys(messages))[:_MOST_SAMPLES]
    ]
    lines.append("")
    lines += _also_reached(shown["also_reached"])
    if edits := shown["edits"]:
        changes = tuple(tuple(change.values()) for change in edits["changes"])[:_MOST_CHANGES]
        lines += ["", f"The edit, in {edits['events']:,} events:", ""]
        lines += as_markdown_table(Section("", ("where", "before", "after", "events"), changes))
        lines += ["", f"{edits['unchanged']:,} unchanged.", ""]
        if refused := edits["refused"]:
            why = escaped("; ".join(dict.fromkeys(refused.values()))[:_LONGEST])
            lines += [f"It does not fit {len(refused):,}, so nothing is published: {why}.", ""]
    return "\n".join(lines)


def replay_as_markdown(shown: ReplayPreview, batch: Batch | None = None) -> str:
    """The plan of a replay, for the person who approves its batch."""
    asked, found = "", shown.found
    if batch is not None:
        asked = f", requested by **{escaped(batch.requested_by)}**: {escaped(batch.reason)}"
    count = quantity(shown.planned, "events")
    lines = [f"**{count} for {escaped(shown.consumer)}**{asked}", ""]
    lines += [f"- {escaped(subject)}" for subject in found.plan.subjects[:_MOST_GROUPS]]
    ramp = "It ramps 1, 10, all, and stops if nothing succeeds."
    lines += ["", f"Publishing takes about {seconds_as_text(shown.seconds)}. {ramp}", ""]
    for why, number in found.left_out.items():
        lines += [f"Left out: {number:,} {LEFT_OUT[why]}.", ""]
    for reason, number in shown.refused.items():
        lines += [f"{number:,} would not be published: {escaped(reason)}.", ""]
    if found.rest_from is not None:
        lines += [f"That is the limit: the rest is from sequence {found.rest_from:,} on.", ""]
    lines += _unreached(shown.reached.as_list())
    return "\n".join([*lines, *_also_reached(shown.also_reached)])


def _unreached(unreached: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for each in unreached:
        who = escaped(", ".join(each["successors"]))
        also = f" The same service has {who}: address them to it." if who else ""
        lines += [
            f"{each['count']:,} would reach no consumer: {escaped(each['reason'])}.{also}",
            "",
        ]
    return lines


def _also_reached(also_reached: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for subject, consumers in also_reached.items():
        receivers = escaped(", ".join(consumers) or "none")
        lines += [f"On {escaped(subject)} these consumers get it too: {receivers}.", ""]
    return lines
