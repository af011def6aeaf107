"""The requests that plan, run and decide. The actor is the token's name."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Request, Response

from sahool_dlq.alerts.outbox import acknowledge_alerts
from sahool_dlq.errors import GroupError
from sahool_dlq.jobs.batches import approve, cancel, pause, reject, resume
from sahool_dlq.jobs.decisions import decide
from sahool_dlq.jobs.groups import GroupEdit, change_group, mute_from
from sahool_dlq.jobs.redrive import known_group, plan_redrive, preview_redrive
from sahool_dlq.jobs.replay import plan_replay, preview_replay
from sahool_dlq.jobs.selecting import selected
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.edit.patch import Edit
from sahool_dlq.redrive.replay.selection import ReplaySelection, stream_position
from sahool_dlq.serving import models
from sahool_dlq.serving.callers import needs
from sahool_dlq.serving.reading import Here, Reader, answered
from sahool_dlq.serving.runs import Runs
from sahool_dlq.serving.tokens import Token

__all__ = ["router"]

Planner = Annotated[Token, Depends(needs("plan"))]
Redriver = Annotated[Token, Depends(needs("act"))]
Why = Annotated[models.Why, Body()]

router = APIRouter(prefix="/v1", tags=["act"])
_MOVES: dict[str, Callable[..., Batch]] = {
    "approve": approve,
    "reject": reject,
    "pause": pause,
    "resume": resume,
    "cancel": cancel,
}
_PLAN: dict[int | str, dict[str, Any]] = {
    200: {"description": "what it would publish, as the dry run of the command", "model": dict}
}
_PLANNED: dict[int | str, dict[str, Any]] = {201: {"model": models.PlannedBatch}}


@router.post("/redrives/preview", responses=_PLAN)
def redrive_preview(settings: Here, _: Reader, redrive: models.Redrive) -> Response:
    """What a redrive would publish, to whom, with which chance; it changes nothing."""
    order = _order(redrive, "", "")
    previewing = preview_redrive(
        settings,
        selected(settings, models.fields_of(redrive.selection)),
        redirect_to=order.redirect_to,
        patch=order.patch,
        per_second=order.per_second,
        addressed_to=order.addressed_to,
        max_age_seconds=order.max_age_seconds,
    )
    return answered(asyncio.run(previewing))


@router.post("/redrives", status_code=201, responses=_PLANNED)
def plan_a_redrive(
    settings: Here, caller: Planner, redrive: Annotated[models.Redrive, Body()], reason: Why
) -> Response:
    """Store a redrive as a batch, which waits until somebody approves it; nothing is published."""
    order = _order(redrive, caller.name, reason)
    planned = asyncio.run(
        plan_redrive(settings, selected(settings, models.fields_of(redrive.selection)), order)
    )
    return _planned(planned)


@router.post("/replays/preview", responses=_PLAN)
def replay_preview(settings: Here, _: Reader, replay: models.Replay) -> Response:
    """What a replay would publish; it changes nothing."""
    reading = preview_replay(settings, _events(replay), per_second=replay.per_second)
    return answered(asyncio.run(reading))


@router.post("/replays", status_code=201, responses=_PLANNED)
def plan_a_replay(
    settings: Here, caller: Planner, replay: Annotated[models.Replay, Body()], reason: Why
) -> Response:
    """Store a replay as a batch, which waits until somebody approves it; nothing is published."""
    order = Order("manual", caller.name, reason, per_second=replay.per_second, needs_approval=True)
    return _planned(asyncio.run(plan_replay(settings, _events(replay), order)))


@router.post("/batches/{id}/{action}", status_code=202, responses={202: {"model": Batch}})
def move_a_batch(
    settings: Here,
    caller: Redriver,
    request: Request,
    id: str,  # noqa: A002
    action: Literal["approve", "reject", "pause", "resume", "cancel"],
    why: models.Reason,
) -> Response:
    """Approve, reject, pause, resume or cancel a batch: `dlq batches`.

    An approved or resumed batch runs in this service, after those that run already; GET of the
    batch has its outcomes. Each group starts with one redrive, then ten, then all.
    """
    batch = _MOVES[action](settings, id, by=caller.name, reason=why.reason)
    if action in ("approve", "resume"):
        runs: Runs = request.app.state.runs
        runs.start(batch.id)
    return answered(batch, 202)


@router.post("/decisions", responses={200: {"model": models.Decided}})
def decide_about(settings: Here, caller: Redriver, wanted: models.Decisions) -> Response:
    """Discard, resolve, park or unpark failures: `dlq discard`, `resolve`, `park`, `unpark`."""
    deciding = decide(
        settings,
        selected(settings, models.fields_of(wanted.selection)),
        wanted.decision,
        actor=caller.name,
        reason=wanted.reason,
        in_version=wanted.in_version,
    )
    return answered(asyncio.run(deciding))


@router.patch("/groups/{id}", responses={200: {"model": models.Care}})
def change_a_group(
    settings: Here,
    caller: Redriver,
    id: str,  # noqa: A002
    change: models.GroupChange,
) -> Response:
    """Change whose a group is, its note, ticket and labels; mute its alerts: `dlq group`."""
    if change.mute is not None and change.unmute:
        raise GroupError("Give mute or unmute, not both.")
    edit = GroupEdit(
        change.owner,
        change.note,
        change.ticket,
        change.labels,
        None if change.mute is None else mute_from(change.mute, datetime.now(UTC)),
        change.unmute,
    )
    group = known_group(settings, id)
    changing = change_group(settings, group, edit, actor=caller.name, reason=change.reason)
    return answered({"group": asyncio.run(changing)})


@router.post("/alerts/acknowledge", responses={200: {"model": models.Acknowledged}})
def acknowledge(
    settings: Here,
    caller: Annotated[Token, Depends(needs("acknowledge"))],
    ids: Annotated[list[int], Body(max_length=1_000, description="empty: all that fire")],
    reason: Why,
) -> Response:
    """Say that somebody looks after these alerts: no reminders until they are over."""
    acknowledging = acknowledge_alerts(settings, ids, caller.name, reason)
    alerts, untold = asyncio.run(acknowledging)
    return answered({"acknowledged": [alert.id for alert in alerts], "untold": untold})


def _order(redrive: models.Redrive, by: str, reason: str) -> Order:
    return Order(
        "manual",
        by,
        reason,
        redrive.redirect_to,
        Edit(redrive.edit).stored() if redrive.edit else None,
        redrive.per_second,
        redrive.addressed_to,
        redrive.max_age_seconds,
        redrive.own_copy,
        needs_approval=True,
    )


def _events(replay: models.Replay) -> ReplaySelection:
    now = datetime.now(UTC)
    return ReplaySelection(
        replay.consumer,
        stream_position(replay.since, now) if replay.since is not None else None,
        stream_position(replay.until, now) if replay.until is not None else None,
        replay.subject,
        replay.where,
        replay.limit,
    )


def _planned(planned: tuple[Batch, Any] | None) -> Response:
    if planned is None:
        return answered({"batch": None, "plan": None}, 201)
    return answered({"batch": planned[0], "plan": planned[1].as_dict()}, 201)
