"""`dlq policy`."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import click

from sahool_dlq.cli.output import console, print_table
from sahool_dlq.cli.plan import abortion, print_report
from sahool_dlq.cli.verb import BY, Answer, verb
from sahool_dlq.jobs.redrive import (
    backtest_policy,
    explain_policy,
    known_group,
    transient_selection,
)
from sahool_dlq.jobs.schedule import explain_versions, redrive_scheduled
from sahool_dlq.redrive.choose.backtest import BacktestReport
from sahool_dlq.redrive.choose.policy import Policy, Verdict
from sahool_dlq.redrive.choose.schedule import Judged, Pending, policy_of
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.choose.versions import Standing
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.settings import Settings


@verb
@click.argument(
    "action", type=click.Choice(["show", "backtest", "run"]), default="show", required=False
)
@click.option("--group", "group_id", help="show: only this failure group, of any error type")
@click.option("--all", "is_all", is_flag=True, help="show: every type, not only transient ones")
@click.option(
    "--worth", type=click.FloatRange(0, 1), help="success rate from which a redrive is worth it"
)
@click.option("--confidence", type=click.FloatRange(0, 1), help="required probability of that rate")
@click.option("--half-life-days", type=click.FloatRange(0, min_open=True), help="of an outcome")
@BY
def command(
    settings: Settings,
    action: str,
    group_id: str | None,
    is_all: bool,
    worth: float | None,
    confidence: float | None,
    half_life_days: float | None,
    by: str,
) -> Answer[Any]:
    """Show what the scheduled redrive does with each group, and why.

    show: pending failures by group and attempt, and whether they would be redriven. backtest: what
    this policy, or one with other numbers, would have done with past redrives. run: redrive what is
    due now, as the flow redrive-transient does; the exit status is 1 if a group was stopped.
    """
    if action == "run":
        if group_id or is_all or worth or confidence or half_life_days:
            raise click.UsageError("run follows the settings: only --by goes with it.")
        return _run(settings, by)
    policy = _changed(policy_of(settings), worth, confidence, half_life_days)
    if action == "backtest":
        return Answer(backtest_policy(settings, policy), _print_backtest)
    if group_id:
        selection = Selection(group_id=known_group(settings, group_id))
    elif is_all:
        selection = Selection(where="status = 'pending'")
    else:
        selection = transient_selection(settings)
    found = explain_policy(settings, selection, policy)
    tried = [
        (standing, verdict)
        for standing, verdict in explain_versions(settings, policy)
        if group_id is None or standing.group_id == selection.group_id
    ]
    told = {
        "groups": [_as_dict(each, policy) for each in found],
        "versions": [_version_as_dict(*each) for each in tried],
    }
    return Answer(told, lambda _: _print(found, tried))


def _run(settings: Settings, by: str) -> Answer[list[RedriveReport]]:
    running = redrive_scheduled(settings, requested_by=by, reason="scheduled redrive")
    reports = asyncio.run(running)

    def show(_: object) -> None:
        for report in reports:
            print_report(report)
        if not reports:
            console.print("Nothing to redrive: see dlq policy.")

    return Answer(reports, show, error=next(filter(None, map(abortion, reports)), None))


def _changed(
    policy: Policy, worth: float | None, confidence: float | None, half_life_days: float | None
) -> Policy:
    given: dict[str, Any] = {
        "worth": worth,
        "confidence": confidence,
        "half_life": half_life_days and timedelta(days=half_life_days),
    }
    return replace(policy, **{name: value for name, value in given.items() if value is not None})


def _told(pending: Pending) -> dict[str, object]:
    return {
        "group_id": pending.cell.group_id,
        "error_type": pending.cell.error_type,
        "services": pending.services,
        "attempt": pending.cell.attempt,
        "pending": pending.failure_count,
    }


def _as_dict(each: Judged, policy: Policy) -> dict[str, object]:
    belief = each.belief
    return {
        **_told(each.pending),
        "chance": round(belief.mean, 4),
        "trials": round(belief.trials, 2),
        "probability": round(belief.probability_above(policy.worth), 4),
        "verdict": each.verdict.kind,
        "why": each.verdict.why,
    }


def _version_as_dict(standing: Standing, verdict: Verdict) -> dict[str, object]:
    return {**standing._asdict(), "verdict": verdict.kind, "why": verdict.why}


def _print(found: list[Judged], tried: list[tuple[Standing, Verdict]]) -> None:
    _print_groups(found)
    if tried:
        _print_versions(tried)


def _print_versions(tried: list[tuple[Standing, Verdict]]) -> None:
    print_table(
        "Groups in the running version of their service",
        ["group", "service", "version", "pending", "verdict", "why"],
        [
            (each.group_id, each.service, each.version, each.pending, verdict.kind, verdict.why)
            for each, verdict in tried
        ],
        drop=["service"],
    )


def _print_groups(found: list[Judged]) -> None:
    if not found:
        console.print("No pending failure matches.")
        return
    print_table(
        "What the scheduled redrive does next",
        ["group", "error type", "services", "attempt", "pending", "verdict", "why"],
        [(*_told(each.pending).values(), each.verdict.kind, each.verdict.why) for each in found],
        note="Each failure also waits before each redrive, and each group starts with 1 event,"
        " then 10, then all.",
        drop=["attempt", "services", "error type"],
    )


def _print_backtest(report: BacktestReport) -> None:
    if not report.redrives:
        console.print("The lake has no redrive with a known outcome yet.")
        return
    print_table(
        f"The policy on {report.redrives:,} redrives that were",
        ["what", "the policy", "as it was"],
        [
            ("redrives", report.taken, report.redrives),
            ("  of these canaries of stopped groups", report.canaries, None),
            ("successes", report.successes_taken, report.successes),
            ("failures", report.taken - report.successes_taken, report.redrives - report.successes),
            (
                "redrives per success",
                report.redrives_per_success,
                report.redrives_per_success_before,
            ),
            ("Brier score of its chances", report.brier, None),
            ("  … of one rate for all", report.brier_of_one_rate, None),
            ("  … of always expecting success", report.brier_of_always, None),
        ],
        note=f"It spares {report.failures_spared:,} failures and misses"
        f" {report.successes_missed:,} successes; at the end it has stopped"
        f" {len(report.groups_stopped):,} groups.",
    )
