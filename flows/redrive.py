"""redrive-transient, redrive-group, redrive and dry-run: redrive failures that can succeed.

And replay: give events to a consumer again that it handled wrongly.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import TypeVar

from prefect import State, flow

from sahool_dlq.alerts.text import quantity
from sahool_dlq.drain.run import DrainReport
from sahool_dlq.jobs.batches import approve, reject, services_of, show_batch
from sahool_dlq.jobs.redrive import (
    known_group,
    plan_redrive,
    preview_redrive,
    run_redrive,
)
from sahool_dlq.jobs.replay import plan_replay, preview_replay
from sahool_dlq.jobs.schedule import redrive_scheduled
from sahool_dlq.orchestration.approval import (
    Approval,
    ask,
    batch_of_this_run,
    plan_as_markdown,
    remember_batch,
    replay_as_markdown,
)
from sahool_dlq.orchestration.forms import (
    AsItWas,
    Changed,
    Events,
    Failures,
    Further,
    Group,
    Name,
    NoFurther,
    Reason,
    replay_selection,
    selection,
)
from sahool_dlq.orchestration.outcomes import in_words
from sahool_dlq.orchestration.show import happened, markdown, progress, stopped, table, told
from sahool_dlq.orchestration.stages import Ended, in_one_sentence, stage
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.redrive.choose.plan import Order, Plan
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.preview import Preview
from sahool_dlq.redrive.publish.ramp import Ramp, RedriveReport
from sahool_dlq.redrive.replay.preview import ReplayPreview
from sahool_dlq.redrive.replay.selection import ReplaySelection
from sahool_dlq.settings import Settings, load_settings

Done = TypeVar("Done")


@flow(name="redrive-transient", flow_run_name="redrive-transient", timeout_seconds=3600)
@in_one_sentence
async def redrive_transient() -> State:
    """Publish temporary failures again, to the consumer that failed.

    Takes the error types of DLQ_TRANSIENT_ERROR_TYPES (TimeoutError and ConnectionError), and
    redrives that a monitor requested, once they are due. Of the former only those that the policy
    takes (`dlq policy`). Each group ramps 1, 10, all, and stops if nothing succeeds. If a service
    runs in a version in which a group has never failed, one failure of the group is redriven as a
    test, whatever its error type; if it succeeds, the rest follows.
    """
    reports = await redrive_scheduled(
        load_settings(),
        requested_by="redrive-transient",
        reason="scheduled redrive",
        step=_step,
    )
    states = [await _told(report) for report in reports] or [await _told(None)]
    state = next((state for state in states if state.is_failed()), states[-1])
    state.message = ". ".join(str(each.message) for each in states)
    return state


@flow(
    name="redrive-group", flow_run_name="redrive-group", persist_result=True, timeout_seconds=3600
)
@in_one_sentence
async def redrive_group(group: Group, reason: Reason, your_name: Name) -> State:
    """Publish the failures of one group again, to the consumers that failed.

    The group ramps 1, 10, all, and stops if nothing succeeds. More than DLQ_REDRIVE_APPROVAL_COUNT
    wait until somebody approves their plan. The page dead-letters opens this form filled in.

    Args:
        group: The group's id, or its beginning.
        reason: Reason; stored with the batch and in the audit.
        your_name: Your name; it is not checked.
    """
    settings = load_settings()
    order = AsItWas().order(your_name, reason)
    return await _carry_out(
        settings,
        lambda: _plan(settings, Selection(group_id=known_group(settings, group)), order),
    )


@flow(name="redrive", flow_run_name="redrive", persist_result=True, timeout_seconds=3600)
@in_one_sentence
async def redrive_selected(
    reason: Reason,
    your_name: Name,
    failures: Failures = Failures(),  # noqa: B008  (the form takes its defaults from it)
    conditions: NoFurther | Further = NoFurther(),  # noqa: B008  (never changed)
    delivery: AsItWas | Changed = AsItWas(),  # noqa: B008  (never changed)
) -> State:
    """Publish the failures that a person selected again, to the consumers that failed.

    Each group ramps 1, 10, all, and stops if nothing succeeds. More than DLQ_REDRIVE_APPROVAL_COUNT
    wait until somebody approves their plan.

    Args:
        reason: Reason; stored with the batch and in the audit.
        your_name: Your name; it is not checked.
        failures: Which failures; all given conditions must hold.
        conditions: Further conditions, a limit, or single failures.
        delivery: How they are published, if not unchanged.
    """
    settings = load_settings()
    order = delivery.order(your_name, reason)
    return await _carry_out(
        settings,
        lambda: _plan(settings, _selected(settings, failures, conditions), order),
    )


@flow(name="dry-run", flow_run_name="dry-run", timeout_seconds=3600)
@in_one_sentence
async def dry_run(
    failures: Failures = Failures(),  # noqa: B008  (never changed)
    conditions: NoFurther | Further = NoFurther(),  # noqa: B008  (never changed)
    delivery: AsItWas | Changed = AsItWas(),  # noqa: B008  (never changed)
) -> State:
    """Show what a redrive would publish, to which consumers, and the expected result; changes
    nothing.

    It uses the state of the last drain. Its page `redrive-plan` has the details.

    Args:
        failures: Which failures; all given conditions must hold.
        conditions: Further conditions, a limit, or single failures.
        delivery: How they would be published, if not unchanged.
    """
    settings, order = load_settings(), delivery.order("", "")
    shown = await stage(
        "Plan",
        lambda: preview_redrive(
            settings,
            _selected(settings, failures, conditions),
            redirect_to=order.redirect_to,
            patch=order.patch,
            per_second=order.per_second,
            addressed_to=order.addressed_to,
            max_age_seconds=order.max_age_seconds,
        ),
        lambda found: _planned(found.plan),
        is_repeatable=True,
    )
    if not shown.plan.count:
        return await told("nothing to do", "Nothing to redrive")
    await markdown("redrive-plan", plan_as_markdown(shown.as_dict()), "What it would publish.")
    about = f"about {shown.expected_successes:,.0f} may succeed"
    planned = _planned(shown.plan)
    return await told(planned, f"Would publish {planned}; {about}")


def _selected(settings: Settings, failures: Failures, conditions: NoFurther | Further) -> Selection:
    """The selection of a form, with the group's full id; raises as `known_group` does."""
    chosen = selection(failures, conditions)
    if chosen.group_id is None:
        return chosen
    return replace(chosen, group_id=known_group(settings, chosen.group_id))


@flow(name="replay", flow_run_name="replay", persist_result=True, timeout_seconds=3600)
@in_one_sentence
async def replay(
    consumer: Name,
    reason: Reason,
    your_name: Name,
    events: Events = Events(),  # noqa: B008  (never changed)
    plan_only: bool = False,
) -> State:
    """Publish events again that a consumer handled without an error, but wrongly.

    They are addressed to this consumer alone. It ramps 1, 10, all, and stops if nothing succeeds.
    More than DLQ_REDRIVE_APPROVAL_COUNT wait until somebody approves their plan.

    Args:
        consumer: Who gets the events: its durable name, or STREAM/CONSUMER.
        reason: Reason; stored with the batch and in the audit.
        your_name: Your name; it is not checked.
        events: Which events; all given conditions must hold, and one is needed.
        plan_only: Show the plan, and publish nothing.
    """
    settings, selection = load_settings(), replay_selection(consumer, events)
    per_second = events.per_second or None
    if not plan_only:
        order = Order("manual", your_name, reason, per_second=per_second)
        return await _carry_out(settings, lambda: _plan_replay(settings, selection, order))
    shown = await stage(
        "Plan",
        lambda: preview_replay(settings, selection, per_second=per_second),
        lambda found: quantity(found.planned, "events"),
        is_repeatable=True,
    )
    await markdown("redrive-plan", replay_as_markdown(shown), "What it would publish.")
    count = quantity(shown.planned, "events")
    return await told(count, f"Would publish {count} for {shown.consumer}")


async def _plan(settings: Settings, selection: Selection, order: Order) -> tuple[Batch, str] | None:
    planned = await plan_redrive(settings, selection, order, _step)
    return planned and (planned[0], plan_as_markdown(planned[1].as_dict(), planned[0]))


async def _plan_replay(
    settings: Settings, selection: ReplaySelection, order: Order
) -> tuple[Batch, str] | None:
    planned = await plan_replay(settings, selection, order, _step)
    return planned and (planned[0], replay_as_markdown(planned[1], planned[0]))


async def _carry_out(
    settings: Settings, plan: Callable[[], Awaitable[tuple[Batch, str] | None]]
) -> State:
    """Store the batch of `plan`, wait for approval if it is large, execute it.

    A run that was suspended, or crashed and is retried, continues with its stored batch.
    """
    batch_id, shown = await batch_of_this_run(), ""
    if batch_id is None:
        planned = await plan()
        if planned is None:
            return await told("nothing to do", "Nothing to redrive")
        batch_id, shown = planned[0].id, planned[1]
        await remember_batch(batch_id)
        await markdown("redrive-plan", shown, "What the batch publishes.")
    batch = show_batch(settings, batch_id)
    if batch.state == "awaiting_approval":
        answer = await ask(shown or f"**{batch.planned:,} events.**")
        said = settings.masked(f"{answer.decided_by}: {answer.comment or 'no comment'}")
        await stage(
            "Approve", lambda: _decide(settings, batch, answer), lambda word: f"{word} by {said}"
        )
        if not answer.approve:
            return await told("rejected", f"Rejected by {said}", state="Rejected")
    async with progress(batch.doing) as move:
        report = await run_redrive(
            settings, batch_id, lambda outcomes, count: move(outcomes.total(), count), _step
        )
    return await _told(report)


async def _decide(settings: Settings, batch: Batch, answer: Approval) -> str:
    """Apply somebody's decision to the batch; returns the word for it."""
    decide = approve if answer.approve else reject
    decide(settings, batch.id, by=answer.decided_by, reason=answer.comment or None)
    return "Approved" if answer.approve else "Rejected"


async def _step(
    name: str, work: Callable[[], Awaitable[Done]], *, is_repeatable: bool = False
) -> Done:
    """A step of the job as a task."""
    return await stage(name, work, _ended, is_repeatable=is_repeatable)


def _ended(found: object) -> Ended:
    match found:
        case DrainReport():
            return f"{quantity(found.drained, 'messages')} drained", False
        case Plan():
            return _planned(found), False
        case (Batch(), Preview(plan=plan)):
            return _planned(plan), False
        case (Batch(), ReplayPreview(planned=count)):
            return quantity(count, "events"), False
        case Ramp():
            return in_words(found.outcomes, found.parked), found.why is not None
    return "nothing to redrive", False


def _planned(plan: Plan) -> str:
    return f"{quantity(plan.count, 'redrives')} of {quantity(len(plan.groups), 'groups')}"


async def _told(report: RedriveReport | None) -> State:
    if report is None:
        return await told("nothing to do", "Nothing to redrive")
    await table(
        "redrives",
        [{"outcome": k.replace("_", " "), "events": n} for k, n in report.outcomes.items()],
        "What came of them.",
    )
    words = in_words(report.outcomes, report.parked)
    if report.state == "aborted":
        batch = f"dlq.redrive.{report.batch_id}"
        happened(
            *("dlq.redrive.aborted", batch, report.batch_id),
            asdict(report),
            groups=report.stopped_groups,
            services=services_of(load_settings(), report.batch_id),
        )
        is_part = report.stopped_groups and "succeeded" in report.outcomes
        some = f" {quantity(len(report.stopped_groups), 'groups')}" if is_part else ""
        return await stopped(f"stopped, {words.split(', ')[0]}", f"Stopped{some}: {words}")
    if report.state in ("paused", "cancelled"):
        said = f"{report.state.capitalize()} by a person: {words}"
        return await told(report.state, said, asdict(report), state=report.state.capitalize())
    if report.planned and words.startswith("none tried"):
        told_of = [each for reasons in report.reasons.values() for each in reasons.items()]
        why = "; ".join(f"{count:,}: {reason}" for reason, count in told_of)  # the first few
        said = f"Nothing went out: {words.removeprefix('none tried, ')}. {why}".rstrip()
        return await told("nothing went out", said, asdict(report), state="Nothing went out")
    return await told(words, f"{report.did} {report.planned:,}: {words}", asdict(report))
