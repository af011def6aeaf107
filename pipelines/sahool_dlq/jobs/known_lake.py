"""Whether there is a lake: one that does not exist is not called empty."""

from sahool_dlq.errors import UnknownNameError
from sahool_dlq.settings import Settings

__all__ = ["known_lake"]


def known_lake(settings: Settings) -> None:
    """Raises UnknownNameError where there is no lake at all, rather than to call it empty."""
    from sahool_dlq.stores.lake.lake import LAYOUTS, Lake  # slow, and not every verb has one

    lake = Lake(settings.lake)
    if all(lake.version(name) is None for name in LAYOUTS):
        raise UnknownNameError(
            f"There is no lake at {lake.uri}: say where it is with --lake-uri or DLQ_LAKE_URI, or"
            " run `dlq drain`, which makes it."
        )
