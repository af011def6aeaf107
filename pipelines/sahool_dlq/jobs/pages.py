"""Pages on disk."""

from pathlib import Path

from sahool_dlq.errors import ReportError


def write_page(file: Path, page: str) -> None:
    """Write a page, with the folders it needs; raises ReportError if that fails."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{file} was not written: {error.strerror}.") from error
