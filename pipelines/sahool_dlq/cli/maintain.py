"""`dlq maintain`."""

from sahool_dlq.cli.output import print_table, spinner
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jobs.upkeep import MaintainReport, maintain_lake
from sahool_dlq.settings import Settings


@verb
def command(settings: Settings) -> Answer[MaintainReport]:
    """Compact the lake's small files into sorted ones, and delete unused files.

    Drains can run meanwhile. Files that a table no longer uses stay for 7 days.
    DLQ_LAKE_RETENTION_DAYS sets the age at which rows are deleted.
    """
    with spinner("Maintaining the lake"):
        return Answer(maintain_lake(settings), _show)


def _show(report: MaintainReport) -> None:
    print_table(
        "",
        ["table", "files before", "after", "rows expired", "files deleted"],
        [
            (t.table, t.files_before, t.files_after, t.expired_rows, t.vacuumed_files)
            for t in report.tables
        ],
        f"{report.seconds:.1f} s",
    )
