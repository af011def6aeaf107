"""The option `--html` of verbs that can write a page with charts."""

from pathlib import Path

import click

HTML = click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write one HTML page with charts that needs no network",
)
