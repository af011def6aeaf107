"""drain-dlq: copies new failures into the lake and PostgreSQL."""

import asyncio
from collections import Counter
from dataclasses import asdict

from prefect import State, flow

from sahool_dlq.bridge.find_unadvised import Untold
from sahool_dlq.bridge.imports import ImportReport, chosen_profiles, import_pending
from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.drain.run import DrainReport
from sahool_dlq.errors import DLQError, LakeError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.status import sink_sequences
from sahool_dlq.orchestration.late import is_overtaken
from sahool_dlq.orchestration.show import happened, progress, table, told
from sahool_dlq.orchestration.stages import in_one_sentence, stage
from sahool_dlq.settings import Settings, load_settings


@flow(name="drain-dlq", flow_run_name="drain-dlq", timeout_seconds=3600)
@in_one_sentence
async def drain_dlq() -> State:
    """Drain the dead-letter stream into the lake and Postgres, each message exactly once.

    First it imports dead letters of others and records failures of consumers without our library
    (`dlq import`, `dlq bridge`). If that fails, the
    run fails after the drain. Overlapping runs are harmless: a later one waits for the earlier, and
    a stuck one is fenced.
    """
    if await is_overtaken():
        return await told("late", "Late: a run since has drained all of it", state="Skipped")
    settings = load_settings()
    trouble: DLQError | None = None
    bridged, untold = Counter[str](), list[Untold]()
    imports: list[ImportReport] = []
    try:  # first, since these dead letters say more about a failure than the server's advisories
        if chosen := chosen_profiles(settings, None, None):
            imports = await stage(
                "Import dead letters of others",
                lambda: import_pending(settings, chosen),
                lambda done: _imported(done) or "Nothing new",
                is_repeatable=True,
            )
    except DLQError as error:
        trouble = error
    try:
        bridged, untold = await stage(
            "Bring in what others gave up",
            lambda: bridge_pending(settings),
            lambda done: _bridged(*done) or "Nothing new",
            is_repeatable=True,
        )
    except DLQError as error:  # reported at the end: the log is drained in any case
        trouble = trouble or error
    async with progress("Draining the dead-letter stream") as move:
        # Once begun it waits for servers; done anew, it would not tell what it stored before.
        report = await stage("Drain the log", lambda: drain_log(settings, move), _drained)
    if report.drained:
        happened("dlq.drained", f"dlq.log.{report.stream}", report.stream, asdict(report))
        told_versions = ", ".join(report.new_versions)
        row = asdict(report) | {"notes": " ".join(report.notes), "new_versions": told_versions}
        await table("drain", [row], "What a run drained.")
        await stage(
            "Compare the sinks", lambda: _compare(settings, report), str, is_repeatable=True
        )
    for version in report.new_versions:
        happened("dlq.version", f"dlq.service.{version.partition(' ')[0]}", version, {})
    if trouble is not None:
        raise trouble
    others = _imported(imports), _bridged(bridged, untold)
    message = "; ".join(filter(None, (_drained(report), *others)))
    return await told(f"{report.drained:,} messages", message, asdict(report))


def _imported(imports: list[ImportReport]) -> str:
    """The results of imports that found anything; empty if there are none."""
    parts = []
    for each in imports:
        if each.imported:
            parts.append(f"{each.imported:,} imported from {each.stream}")
        if each.missed:
            parts.append(f"at most {each.missed:,} left {each.stream} before they were imported")
    return "; ".join(parts)


def _bridged(bridged: Counter[str], untold: list[Untold]) -> str:
    """The results for events that consumers without our library gave up; empty if there are
    none."""
    parts = []
    if count := bridged["bridged"] + bridged["gone"] + bridged["found"]:
        parts.append(f"{count:,} of consumers without our code")
    if bridged["removed"]:
        parts.append(f"{bridged['removed']:,} events left their stream in a consumer's hands")
    if count := sum(each.at_least for each in untold):
        parts.append(f"{count:,} more were dropped by other consumers; only the count is known")
    return "; ".join(parts)


def _drained(report: DrainReport) -> str:
    message = f"Drained {report.drained:,} messages in {report.seconds:.1f} s"
    if report.quarantined:
        message += f", {report.quarantined:,} quarantined"
    if report.gaps:
        message += f"; {report.gaps} gap in the stream: {' '.join(report.notes)}"
    return message


async def _compare(settings: Settings, report: DrainReport) -> str:
    """Read the position of each sink again; raises LakeError if one is behind."""
    held = await asyncio.to_thread(sink_sequences, settings, report.stream)
    for sink, sequence in held.items():
        if sequence < report.last_sequence:
            raise LakeError(
                f"The sink {sink} holds the log up to {sequence:,}, not {report.last_sequence:,}:"
                " `dlq verify` says what it lacks."
            )
    return f"{', '.join(held)} hold the log up to sequence {report.last_sequence:,}"
