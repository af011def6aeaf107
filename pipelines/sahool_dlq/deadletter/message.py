"""One message of the dead-letter stream, from a reader."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MOST_AHEAD = timedelta(minutes=1)
"""How far a sender's clock may be ahead of the server's; a later time is replaced by the server's.
"""


class LogMessage(NamedTuple):
    """A stored message: its position in the stream, and its bytes."""

    subject: str
    sequence: int
    timestamp_ns: int  # the server's time, nanoseconds since 1970
    data: bytes

    @property
    def published_at(self) -> datetime:
        """The server's time, UTC, to the microsecond."""
        return time_of_ns(self.timestamp_ns)


def time_of_ns(timestamp_ns: int) -> datetime:
    """Nanoseconds since 1970 as aware UTC, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=timestamp_ns // 1000)
