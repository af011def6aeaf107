"""Recent failures of something, as one line of bars."""

from dataclasses import dataclass

__all__ = ["PARTS", "Trend"]

PARTS = 28
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Trend:
    """Failures in each of PARTS steps, the last of which ends now."""

    counts: tuple[int, ...]

    def __str__(self) -> str:
        """As a line of bars; a step without failures is blank, a step with few is not."""
        most = max(self.counts, default=0)
        top = len(_BARS) - 1
        return "".join(_BARS[round(top * count / most)] if count else " " for count in self.counts)
