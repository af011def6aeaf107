"""`dlq maintain`."""

from sahool_dlq.cli.output import print_json, print_table, spinner
from sahool_dlq.cli.verb import verb
from sahool_dlq.jobs.upkeep import maintain_lake
from sahool_dlq.settings import Settings


@verb
def command(settings: Settings, is_json: bool) -> None:
    """Compact the lake's small files into sorted ones, and delete unused files.

    Drains can run meanwhile. Files that a table no longer uses stay for 7 days.
    DLQ_LAKE_RETENTION_DAYS sets the age at which rows are deleted.
    """
    with spinner("Maintaining the lake"):
        report = maintain_lake(settings)
    if is_json:
        print_json(report.as_dict())
        return
    print_table(
        "",
        ["table", "files before", "after", "rows expired", "files deleted"],
        [
            (
                table.table,
                table.files_before,
                table.files_after,
                table.expired_rows,
                table.vacuumed_files,
            )
            for table in report.tables
        ],
        f"{report.seconds:.1f} s",
    )
