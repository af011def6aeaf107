"""The complete jobs about stored batches: list, show, approve, pause, resume, cancel."""

from sahool_dlq.connections import open_postgres
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.batches import Batch, BatchState, batches, find_batch, move
from sahool_dlq.settings import Settings

__all__ = [
    "approve",
    "cancel",
    "list_batches",
    "pause",
    "reject",
    "resume",
    "services_of",
    "show_batch",
]


def approve(settings: Settings, batch_id: str, *, by: str, reason: str | None = None) -> Batch:
    """Let a batch that waits for approval run; `run_redrive`, or the next redrive, executes it."""
    return _move(settings, batch_id, "awaiting_approval", "running", by, reason)


def reject(settings: Settings, batch_id: str, *, by: str, reason: str | None = None) -> Batch:
    """Cancel a batch that waits for approval."""
    return _move(settings, batch_id, "awaiting_approval", "cancelled", by, reason)


def pause(settings: Settings, batch_id: str, *, by: str, reason: str | None = None) -> Batch:
    """Publish nothing more of a batch; published redrives are followed to their outcome."""
    return _move(settings, batch_id, "running", "paused", by, reason)


def resume(settings: Settings, batch_id: str, *, by: str, reason: str | None = None) -> Batch:
    """Let a paused batch run; `run_redrive`, or the next redrive, continues it.

    This is also possible for a batch that a killed run has left `planned` or `running`; its state
    does not change.
    """
    batch = show_batch(settings, batch_id)
    if batch.state in ("planned", "running"):
        return batch
    return _move(settings, batch_id, "paused", "running", by, reason)


def cancel(settings: Settings, batch_id: str, *, by: str, reason: str | None = None) -> Batch:
    """End a batch; its unpublished failures stay pending."""
    return _move(settings, batch_id, None, "cancelled", by, reason)


def list_batches(settings: Settings, limit: int = 20) -> list[Batch]:
    """The latest batches, those that have not ended first."""
    with open_postgres(settings) as connection:
        return batches(connection, limit)


def show_batch(settings: Settings, batch_id: str) -> Batch:
    """A batch, by the first digits of its id."""
    with open_postgres(settings) as connection:
        return find_batch(connection, batch_id)


def services_of(settings: Settings, batch_id: str) -> list[str]:
    """The services whose failures a batch redrives, sorted."""
    with open_postgres(settings) as connection:
        rows = connection.execute(
            "SELECT DISTINCT service(f) FROM redrives r JOIN failed_events f ON f.id = r.failure_id"
            " WHERE r.batch_id = %s ORDER BY 1",
            [batch_id],
        )
        return [name for (name,) in rows]


def _move(
    settings: Settings,
    batch_id: str,
    since: str | None,
    to: BatchState,
    by: str,
    reason: str | None,
) -> Batch:
    by, reason = settings.masked(by), reason and settings.masked(reason)
    with open_postgres(settings) as connection:
        batch = find_batch(connection, batch_id)
        if since is not None and batch.state != since:
            raise RedriveError(f"The batch {batch.id} is {batch.state}, not {since}.")
        move(connection, batch.id, to, actor=by, reason=reason)
        return find_batch(connection, batch.id)
