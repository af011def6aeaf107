"""watch-runs: frees the slots of runs whose process has died."""

from prefect import State, flow

from sahool_dlq.orchestration.late import is_overtaken
from sahool_dlq.orchestration.show import table, told
from sahool_dlq.orchestration.silent import mark_silent
from sahool_dlq.orchestration.stages import in_one_sentence


@flow(name="watch-runs", flow_run_name="watch-runs", timeout_seconds=300)
@in_one_sentence
async def watch_runs(silent_seconds: float = 120) -> State:
    """Mark runs without heartbeat as crashed, which frees their slots.

    A missing heartbeat counts only while others arrive, so not after an outage of the server.

    Args:
        silent_seconds: Time without a heartbeat; a run sends one every 30 seconds.
    """
    if await is_overtaken():
        return await told("late", "Late: a run since has looked", state="Skipped")
    dead = await mark_silent(silent_seconds)
    if dead:
        rows = [{"run": each.name, "last heard": str(each.last_heard_at)} for each in dead]
        await table("dead-runs", rows, "Marked as crashed.")
    names = ", ".join(each.name for each in dead)
    return await told(f"{len(dead)} dead", f"Marked as crashed: {names}" if dead else "All live")
