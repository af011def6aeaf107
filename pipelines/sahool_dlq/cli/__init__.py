"""The `dlq` command: one module per verb, loaded when it is called."""

import sys

try:
    import click
except ImportError:
    click = None  # type: ignore[assignment]  # the wheel can be used without click

CHAPTERS = {
    "Look": {
        "status": "stream, sinks, open failures and redrives at a glance",
        "groups": "groups of similar failures: their state, and what to do",
        "incidents": "groups that failed together or for one cause, as one story each",
        "incident": "one incident with its timeline; a draft of its post-mortem",
        "show": "one failure or one group, with its traceback and history",
        "why": "what failing events have that succeeding ones of their consumer do not have",
        "contract": "what the events of a subject have in common, and which failures left it",
        "get": "the event of a failure as it was: bytes, headers, a line that publishes it",
        "try": "a handler of the working copy on the events that failed; writes their test",
        "export": "failures with their events as JSON lines, CSV, Parquet or Arrow",
        "deploys": "versions of each service, and the groups each brought and cured",
        "report": "the current state as tables, Markdown, JSON or a page with charts",
        "alerts": "alerts that fire now; history, acknowledge, send a test",
        "doctor": "find streams and consumers that lose events, on any NATS server",
        "sql": "query the lake in SQL: one statement, or a prompt",
        "tables": "describe tables, views, marts and their columns",
        "policy": "which groups the scheduled redrive will take, and why; backtest",
        "audit": "who did what to which failures, why, with which result",
    },
    "Act": {
        "redrive": "publish failures again to the consumer that failed (also: retry)",
        "replay": "publish events again that succeeded wrongly, for one consumer",
        "batches": "planned redrives: list, show, pause, resume, cancel, approve",
        "discard": "close failures that need no action",
        "resolve": "close failures that were repaired by hand",
        "park": "exclude failures from automatic redrives",
        "unpark": "allow redrives of parked failures again",
        "group": "who owns a group: owner, note, ticket, labels; mute its alerts",
        "erase": "delete all data of one tenant from stream, lake and Postgres",
    },
    "Run": {
        "up": "run servers, Prefect UI and scheduled flows until Ctrl-C",
        "demo": "a complete run on its own servers: fail, drain, redrive, check",
        "monitor": "show dead letters as they arrive, drain them at once, send alerts",
        "drain": "copy new dead letters from the stream to the lake and Postgres",
        "marts": "compute the analysis tables (marts)",
        "bridge": "record failures of consumers that do not use this library",
        "import": "take in dead letters that other software wrote to its own stream",
        "exporter": "serve metrics for Prometheus",
        "serve": "serve the jobs over HTTP, with tokens and roles",
        "mcp": "let a language model look, and plan what a person approves (MCP)",
        "verify": "compare stream, lake and Postgres; check the lake's files; repair",
        "maintain": "compact and vacuum the lake, and delete what is past its retention",
        "copy": "copy the lake consistently while drains run",
        "regroup": "assign past failures to groups again, by the current rules",
        "simulate": "write synthetic failures with known causes, to try the analyses",
    },
    "Set up": {
        "migrate": "create missing tables and streams",
        "deploy": "deploy the scheduled flows to your own Prefect server",
        "adopt": "set up a consumer that does not use this library: retry limit, proof",
        "nats-permissions": "print the NATS permissions that a service or a role needs",
        "tokens": "tokens of `dlq serve`: list, add, remove",
        "redact": "show what a drain would mask, in a file or in the stream",
        "fingerprint": "print the failure group of each line of a file, to test rules",
        "views": "write views.sql next to the lake, for a DuckDB shell",
        "completion": "print the script for shell completion",
    },
}
HELP = ["-h", "--help"]
VERBS = {verb: what for verbs in CHAPTERS.values() for verb, what in verbs.items()}


def main() -> None:
    """Run `dlq`; without the `pipelines` extra, say how to install it. Ctrl-C exits with 130."""
    if click is None:
        sys.exit("The dlq command needs the jobs: pip install 'sahool-dlq[pipelines,embedded]'.")
    try:
        _command()(prog_name="dlq")
    except KeyboardInterrupt:  # while modules load
        sys.exit(130)


def _command() -> "click.Group":
    from sahool_dlq.cli.verbs import Verbs

    return Verbs(CHAPTERS)
