"""The location of the SQL files: `sql/` of the checkout, or `sahool_dlq/_sql` of an installed
wheel.
"""

from pathlib import Path

from sahool_dlq.errors import QueryError

__all__ = ["read_sql", "sql_folder"]

_PACKAGE = Path(__file__).parent


def sql_folder() -> Path:
    """The folder with `marts/`, `views/`, `monitoring/` and `postgres/`.

    The installed copy wins, so that a wheel never reads another `sql/` next to its packages. Raises
    QueryError if neither exists.
    """
    for folder in (_PACKAGE / "_sql", _PACKAGE.parents[1] / "sql"):
        if folder.is_dir():
            return folder
    raise QueryError(f"The SQL files are missing next to {_PACKAGE}: reinstall sahool-dlq.")


def read_sql(relative: str) -> str:
    """The text of one SQL file, named relative to the folder: `marts/failures_by_type.sql`.

    Raises QueryError if there is no such file.
    """
    try:
        return (sql_folder() / relative).read_text(encoding="utf-8")
    except OSError as error:
        raise QueryError(f"There is no SQL file {relative} in {sql_folder()}.") from error
