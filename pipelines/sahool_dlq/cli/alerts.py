"""`dlq alerts`."""

import asyncio
import getpass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import click

from sahool_dlq.alerts.evaluate import AlertsReport, evaluate_alerts, send_test
from sahool_dlq.alerts.grafana import grafana_rules
from sahool_dlq.alerts.outbox import acknowledge_alerts
from sahool_dlq.alerts.prometheus import prometheus_rules
from sahool_dlq.alerts.rules import AlertRules, Scope, alert_rules
from sahool_dlq.alerts.states import Alert
from sahool_dlq.alerts.store import past_alerts
from sahool_dlq.alerts.text import command as next_command
from sahool_dlq.alerts.text import headline, quantity
from sahool_dlq.cli import HELP
from sahool_dlq.cli.output import console, log_plainly, print_table, safe, spinner
from sahool_dlq.cli.verb import Answer, limited, verb
from sahool_dlq.connections import open_postgres
from sahool_dlq.jobs.alerts import AlertsNow, alerts_now
from sahool_dlq.settings import Settings


class _Alerts(click.Group):
    """Without a word after it, `dlq alerts` shows what fires."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["now", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Alerts, context_settings={"help_option_names": HELP})
def command() -> None:
    """What fires now, and what to do first.

    The flow `alert` evaluates the rules every minute; docs/alerts.md explains them. Each command
    takes --json and the flags of the other verbs.
    """


@verb
def now(settings: Settings) -> Answer[AlertsNow]:
    """What fires now; `dlq alerts` alone does the same."""
    rules = alert_rules(settings)

    def show(told: AlertsNow) -> None:
        _show_firing(rules, told.alerts)
        for left in told.undelivered:
            console.print(
                f"[bold red]The channel {safe(left['channel'])} did not accept messages:"
                f" {left['waiting']} waiting, {left['given_up']} given up in the last seven"
                f" days.[/bold red] `dlq alerts history` lists them, `dlq alerts test` tests the"
                f" channel.",
                soft_wrap=True,
            )
        _say_when(told.evaluated_at)

    return Answer(alerts_now(settings), show)


@verb
def check(settings: Settings) -> Answer[AlertsReport]:
    """Evaluate every rule now and send what is to be said, as the flow `alert` does.

    Ends with 1 where a channel has not taken a message.
    """
    log_plainly()
    with spinner("Asking the rules"):
        report = asyncio.run(evaluate_alerts(settings))
    return Answer(report, _show_report, status=1 if report.waiting or report.given_up else 0)


def _show_report(report: AlertsReport) -> None:
    for title in report.told:
        console.print(f"[bold]{safe(title)}[/bold]", soft_wrap=True)
    for text in report.unknown:
        console.print(f"[dim]Unknown: {safe(text)}[/dim]", soft_wrap=True)
    given_up = f", given up: {report.given_up}" if report.given_up else ""
    console.print(
        f"Firing: {len(report.firing)}. Pending: {report.pending}. Messages taken:"
        f" {report.delivered}, waiting: {report.waiting}{given_up}. Failures marked:"
        f" {report.marked:,}."
    )
    for text in report.firing:
        console.print(f"[red]● {safe(text)}[/red]", soft_wrap=True)


@verb
def test(settings: Settings) -> Answer[Any]:
    """Send a message that says it is a test to every channel of DLQ_ALERT_URLS."""
    log_plainly()
    with spinner("Sending"):
        results = asyncio.run(send_test(settings))

    def show(_: object) -> None:
        for name, is_taken in results.items():
            word = "[green]took it[/green]" if is_taken else "[bold red]did not take it[/bold red]"
            console.print(f"{safe(name)} {word}")

    return Answer({"channels": results}, show, status=0 if all(results.values()) else 1)


@verb
@limited(20, "maximum number of alerts")
def history(settings: Settings, limit: int) -> Answer[Any]:
    """What fired, the latest first, and whether its messages arrived."""
    rules = alert_rules(settings)
    with open_postgres(settings) as connection:
        alerts = past_alerts(connection, limit)
        messages = connection.execute(
            "SELECT created_at, channel, title, try_count, delivered_at, given_up_at"
            " FROM alert_messages ORDER BY id DESC LIMIT %s",
            [limit],
        ).fetchall()
    keys = ("at", "channel", "title", "tries", "delivered_at", "given_up_at")
    sent = [dict(zip(keys, message, strict=True)) for message in messages]
    told = {"alerts": alerts, "messages": sent}
    return Answer(told, lambda _: _show_history(rules, alerts, messages))


def _show_history(rules: AlertRules, alerts: list[Alert], messages: list[tuple[Any, ...]]) -> None:
    if not alerts:
        console.print("No alert has fired yet.")
        return
    print_table(
        "Alerts",
        ["id", "fired", "resolved", "what", "messages", "looked after by"],
        [
            (a.id, a.fired_at, a.resolved_at, _headline(rules, a), a.told_count, a.acked_by)
            for a in alerts
        ],
        drop=["looked after by", "messages", "resolved"],
    )
    if messages:
        print_table(
            "Messages",
            ["at", "channel", "arrived", "tries", "title"],
            [
                (at, channel, _fate(channel, taken, given_up), tries, title)
                for at, channel, title, tries, taken, given_up in messages
            ],
            drop=["tries", "channel"],
        )


@verb
@click.argument("ids", nargs=-1, type=int, metavar="[ID]…")
@click.option("--reason", default="", help="what you do about it")
def ack(settings: Settings, ids: tuple[int, ...], reason: str) -> Answer[Any]:
    """Say that you look after these alerts, or all that fire: no reminders until they are over.

    Their incidents are acknowledged, where a channel keeps them.
    """
    log_plainly()
    acknowledging = acknowledge_alerts(settings, ids, getpass.getuser(), reason)
    alerts, untold = asyncio.run(acknowledging)

    def show(_: object) -> None:
        rules = alert_rules(settings)
        for alert in alerts:
            said = f"Acknowledged {alert.id}: {safe(_headline(rules, alert))}"
            console.print(said, soft_wrap=True)
        for channel in untold:
            console.print(
                f"The channel {safe(channel)} has not been told yet: the next evaluation tells it.",
                soft_wrap=True,
            )

    return Answer({"acknowledged": [alert.id for alert in alerts], "untold": untold}, show)


@verb
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "prometheus", "grafana"]),
    default="table",
    show_default=True,
    help="a table, or a rules file for Prometheus or Grafana",
)
def rules(settings: Settings, form: str) -> Answer[Any]:
    """The rules in force, with your changes; also as rules of Prometheus or Grafana."""
    found = alert_rules(settings)
    rows = [
        (rule.name, scope.name, _above(scope), rule.unit, rule.for_minutes, scope.severity,
         ", ".join(scope.channels) or "all")
        for rule in found.rules
        if rule.is_enabled
        for scope in found.scopes(rule)
    ]  # fmt: skip
    columns = ["rule", "scope", "above", "unit", "for minutes", "severity", "channels"]

    def show(_: object) -> None:
        if form == "prometheus":
            click.echo(prometheus_rules(found), nl=False)
        elif form == "grafana":
            click.echo(grafana_rules(found), nl=False)
        else:
            note = "docs/alerts.md explains each rule; – means off."
            drop = ["channels", "severity", "for minutes"]
            print_table("Alert rules", columns, rows, note, drop=drop)

    return Answer({"rules": [dict(zip(columns, row, strict=True)) for row in rows]}, show)


for _each in (now, check, test, history, ack, rules):
    command.add_command(_each)


def _show_firing(rules: AlertRules, alerts: list[Alert]) -> None:
    if not alerts:
        console.print("[green]Nothing fires.[/green]")
        return
    for alert in alerts:
        rule = rules.rule(alert.rule)
        if rule is None:
            continue
        colour = "yellow" if alert.state == "pending" else "red"
        title = safe(headline(alert, rule))
        console.print(
            f"[{colour}]● {alert.state}[/{colour}] [bold]{title}[/bold]"
            f" [dim]{alert.severity}, {alert.id}[/dim]",
            soft_wrap=True,
        )
        value = quantity(alert.value, rule.unit)
        for name, text in (
            ("Now", f"{value}, fires above {alert.above:,g}"),
            ("Since", f"{alert.since.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"),
            ("Who", alert.detail),
            ("Looked after by", " ".join(filter(None, (alert.acked_by, alert.ack_reason)))),
            ("First", rule.first),
            ("Next", next_command(alert, rule)),
        ):
            if text:
                console.print(f"  {name}: {safe(text)}", soft_wrap=True)


def _say_when(evaluated_at: datetime | None) -> None:
    if evaluated_at is None:
        console.print("[dim]Never evaluated: run `dlq alerts check`, or the flow alert.[/dim]")
        return
    seconds = (datetime.now(UTC) - evaluated_at).total_seconds()
    ago = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
    colour = "dim" if seconds < 600 else "bold red"
    console.print(f"[{colour}]Evaluated {ago} ago.[/{colour}]")


def _above(scope: Scope) -> float | None:
    """The threshold; None where the rule is off there."""
    return scope.above if isfinite(scope.above) else None


def _headline(rules: AlertRules, alert: Alert) -> str:
    rule = rules.rule(alert.rule)
    return headline(alert, rule) if rule else alert.rule


def _fate(channel: str, taken: datetime | None, given_up: datetime | None) -> str:
    if taken is not None:
        return "yes"
    if channel == "log":
        return "logged only"
    return "given up" if given_up else "not yet"
