"""The `dlq` command: one module per verb, loaded when it is called."""

import sys

try:
    import click
except ImportError:
    click = None  # type: ignore[assignment]

CHAPTERS = {
    "Look": {
        "status": "stream, sinks, open failures and redrives at a glance",
        "groups": "failures alike, with their state and what to do",
        "show": "one failure or one group, with its trace and history",
        "get": "the event of a failure as it was: bytes, headers, a line that publishes it",
        "try": "a handler of the working copy on the events that failed; writes their test",
        "export": "failures with their events as JSON lines, CSV, Parquet or Arrow",
        "report": "how things stand, as tables, Markdown, JSON or a page with charts",
        "alerts": "what fires now; send a test, look back, acknowledge",
        "doctor": "what becomes of failures at every consumer of any NATS, and how to mend it",
        "sql": "ask the lake in SQL: one statement, or a prompt",
        "tables": "tables, views, marts and their columns, explained",
        "policy": "which groups the scheduled redrive takes, and why; backtest",
        "audit": "who did what to which failures, why, with which result",
    },
    "Act": {
        "redrive": "publish failures again to the consumer that failed (retry, replay)",
        "batches": "redrives that were planned: list, show, pause, resume, cancel, approve",
        "discard": "close failures that nothing is to be done about",
        "resolve": "close failures that were repaired by hand",
        "park": "keep failures from every automatic redrive",
        "unpark": "let parked failures be redriven again",
        "erase": "delete what a tenant has in stream, lake and Postgres, for good",
    },
    "Run": {
        "up": "servers, Prefect UI and scheduled flows until Ctrl-C",
        "demo": "the whole story once, on servers of its own, then a summary",
        "monitor": "dead letters as they come: shown, drained at once, alerted",
        "drain": "bring what failed into the lake and Postgres",
        "marts": "compute the tables that explain the failures",
        "bridge": "failures of consumers without our code, from the server's advisories",
        "exporter": "metrics for Prometheus",
        "verify": "compare stream, lake and Postgres; read the lake's checksums; repair",
        "maintain": "compact and vacuum the lake, and forget what is too old",
        "copy": "a copy of the lake that is whole, while drains go on",
        "regroup": "history in the groups that today's rules make",
        "simulate": "a realistic history with known causes, for trying things out",
    },
    "Set up": {
        "migrate": "make the tables and streams that are missing",
        "deploy": "send the scheduled flows to a Prefect server of your own",
        "adopt": "let a consumer without our code give up what fails, and prove what succeeds",
        "nats-permissions": "what a service or role needs of NATS, for the server's configuration",
        "redact": "what a drain would mask, in a file or in the stream; changes nothing",
        "fingerprint": "the failure group of each line of a file, to try rules on",
        "views": "write views.sql, for a DuckDB shell, beside the lake",
        "completion": "the script that lets your shell complete verbs and options",
    },
}
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
