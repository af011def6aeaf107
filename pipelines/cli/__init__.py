"""The `dlq` command: one module per verb, loaded when it is called."""

import importlib
import sys

try:
    import click
except ImportError:
    click = None  # type: ignore[assignment]

VERBS = {
    "up": "servers, Prefect UI and scheduled flows until Ctrl-C",
    "demo": "the whole story once, on servers of its own, then a summary",
    "deploy": "send the scheduled flows to a Prefect server of your own",
    "migrate": "make the tables and streams that are missing",
    "monitor": "dead letters as they come: shown, drained at once, alerted",
    "bridge": "failures of consumers without our code, from the server's advisories",
    "doctor": "what becomes of failures at every consumer of any NATS, and how to mend it",
    "adopt": "let a consumer without our code give up what fails, and prove what succeeds",
    "drain": "bring what failed into the lake and Postgres",
    "marts": "compute the tables that explain the failures",
    "groups": "failures alike, with their state and what to do",
    "report": "how things stand, as a page with charts, Markdown or JSON",
    "show": "one failure or one group, with its trace and history",
    "redrive": "publish failures again to the consumer that failed (retry, replay)",
    "alerts": "what fires now; send a test, look back, acknowledge",
    "exporter": "metrics for Prometheus",
    "nats-permissions": "what a service or role needs of NATS, for the server's configuration",
    "batches": "redrives that were planned: list, show, pause, resume, cancel, approve",
    "policy": "which groups the scheduled redrive takes, and why; backtest",
    "discard": "close failures that nothing is to be done about",
    "resolve": "close failures that were repaired by hand",
    "park": "keep failures from every automatic redrive",
    "unpark": "let parked failures be redriven again",
    "audit": "who did what to which failures, why, with which result",
    "erase": "delete what a tenant has in stream, lake and Postgres, for good",
    "redact": "what a drain would mask, in a file or in the stream; changes nothing",
    "fingerprint": "the failure group of each line of a file, to try rules on",
    "regroup": "history in the groups that today's rules make",
    "sql": "one SELECT over the lake",
    "simulate": "a realistic history with known causes, for trying things out",
    "status": "stream, sinks, open failures and redrives at a glance",
    "verify": "compare stream, lake and Postgres; read the lake's checksums; repair",
    "copy": "a copy of the lake that is whole, while drains go on",
    "maintain": "compact and vacuum the lake, and forget what is too old",
    "views": "write views.sql, for a DuckDB shell, beside the lake",
}


def main() -> None:
    """Run `dlq`; without the `pipelines` extra, say how to install it."""
    if click is None:
        sys.exit("The dlq command needs the jobs: pip install 'sahool-dlq[pipelines,embedded]'.")
    _command()(prog_name="dlq")


def _command() -> "click.Group":
    class Verbs(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
            return list(VERBS)

        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
            if name not in VERBS:
                return None
            module = importlib.import_module(f"pipelines.cli.{name.replace('-', '_')}")
            command: click.Command = module.command
            return command

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
            with formatter.section("Verbs"):
                formatter.write_dl(list(VERBS.items()))

    return Verbs(
        help="Dead letters of NATS JetStream: drain, explain, redrive.\n\n"
        "Settings come from DLQ_* in the environment, from a running `dlq up`, or from flags.",
        epilog="dlq VERB --help says more.",
        no_args_is_help=True,
    )
