"""The processes of a soak, including a person who decides; each runs until it is killed."""

import asyncio
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sahool_dlq.errors import DLQError
from sahool_dlq.jobs.batches import approve, cancel, list_batches, pause, reject, resume
from sahool_dlq.jobs.decisions import decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import (
    plan_redrive,
    redrive,
    run_redrive,
    transient_selection,
)
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.decisions import APPLIES_TO, Decision
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from support.soak_services import PATCH


def again_and_again(act: Callable[..., Any], settings: Settings, log: Path, seed: int) -> None:
    """Do it without end; an unexpected error ends it and is in its log."""
    with log.open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    chance = random.Random(seed)
    while True:
        try:
            asyncio.run(act(settings, chance))
        except DLQError as error:
            print(f"dlq: {error}", flush=True)
        except BaseException:
            traceback.print_exc()
            sys.exit(70)
        time.sleep(chance.uniform(0.05, 0.4))


async def drain(settings: Settings, chance: random.Random) -> None:
    await drain_log(settings.model_copy(update={"drain_batch_messages": chance.randrange(3, 90)}))


async def bring_back(settings: Settings, chance: random.Random) -> None:
    """One run of a redriver: by the schedule's policy, or all of a service, fast or slow."""
    settings = settings.model_copy(update={"redrive_per_second": chance.choice([2, 10, 1_000])})
    by_hand = Selection(service=chance.choice(["ndvi", "rescue"]), limit=chance.randrange(1, 30))
    is_scheduled = chance.random() < 0.5
    report = await redrive(
        settings,
        transient_selection(settings) if is_scheduled else by_hand,
        trigger="automatic" if is_scheduled else "manual",
        requested_by="redriver",
        reason="soak",
    )
    print(f"redriven {asdict(report) if report else None}", flush=True)


async def decide_something(settings: Settings, chance: random.Random) -> None:
    """One decision of a person, recorded as a line in a file."""
    began = time.time()
    did = chance.choices(list(DEEDS), weights=list(DEEDS.values()))[0]
    if about := await _do(did, settings, chance):
        note(settings, did, about, began)


def note(settings: Settings, did: str, about: Sequence[str], began: float) -> None:
    """Record what a person did."""
    with (settings.home / "deeds.jsonl").open("a") as deeds:
        deeds.write(json.dumps([did, about, began, time.time()]) + "\n")


DEEDS = {
    "parked": 3,
    "unparked": 4,
    "discarded": 1,
    "resolved": 1,
    "edited": 4,
    "redirected": 4,
    "paused": 3,
    "resumed": 3,
    "cancelled": 1,
    "approved": 2,
    "rejected": 1,
}
"""What a person does, and how often."""
_VERBS = {
    "paused": (pause, ("running",)),
    "resumed": (resume, ("paused",)),
    "cancelled": (cancel, ("planned", "running")),
    "approved": (approve, ("awaiting_approval",)),
    "rejected": (reject, ("awaiting_approval",)),
}
"""How, and to batches of which states."""


async def _do(did: str, settings: Settings, chance: random.Random) -> list[str]:
    """Do it; the failures that it was done to, or none."""
    if did in _VERBS:
        verb, states = _VERBS[did]
        batches = sorted(each.id for each in list_batches(settings) if each.state in states)
        if not batches:
            return []
        batch = chance.choice(batches)
        if did == "resumed":  # who is killed may have done it
            note(settings, did, [batch], time.time())
        verb(settings, batch, by="ana")
        return [batch]
    statuses = APPLIES_TO.get(did, ("pending", "parked"))
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        found = connection.execute(
            "SELECT id::text, EXISTS (SELECT FROM redrives r WHERE r.failure_id = f.id"
            " AND r.state IN ('planned', 'published')) FROM failed_events f"
            " WHERE status = ANY(%s) ORDER BY dlq_sequence",
            [list(statuses)],
        ).fetchall()
    in_hand = [row[0] for row in found if row[1]]
    among = in_hand if in_hand and chance.random() < 0.5 else [row[0] for row in found]
    ids = tuple(chance.sample(among, min(len(among), chance.randrange(1, 6))))
    if not ids:
        return []
    if did in APPLIES_TO:
        decision: Decision = did
        if did == "unparked":
            note(settings, did, ids, time.time())
        report = await decide(
            settings, Selection(failure_ids=ids), decision, actor="ana", reason="soak"
        )
        return [each for each in ids if each not in report.left]
    changes: dict[str, Any] = {"patch": PATCH}
    if did == "redirected":
        changes = {"redirect_to": f"{settings.subject_prefix}.actions.rescue"}
    order = Order("manual", "ana", "soak", **changes)
    planned = await plan_redrive(settings, Selection(failure_ids=ids), order)
    if planned is not None and chance.random() < 0.5:  # else a redriver takes it up
        await run_redrive(settings, planned[0].id)
    return [planned[0].id] if planned else []
