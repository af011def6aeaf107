"""A redrive's outcomes as text: how many were tried, the results, the rest (pure)."""

from collections.abc import Mapping

__all__ = ["in_words"]

_TRIED = ("succeeded", "failed_again", "outcome_unknown")  # they were published
_SAID = {"failed_again": "failed again", "outcome_unknown": "without an answer"}
_LEFT = ("cancelled", "held")  # nothing was published, and they are not reported


def in_words(outcomes: Mapping[str, int], parked: int = 0) -> str:
    """`1 tried, none succeeded, 988 left as they were`; of the cancelled ones, `parked` were
    parked.

    `outcomes` are redrives by state of the outbox, or held.
    """
    tried = sum(outcomes.get(state, 0) for state in _TRIED)
    parts = [f"{tried:,} tried" if tried else "none tried"]
    if tried:
        succeeded = outcomes.get("succeeded", 0)
        how_many = {tried: "all", 0: "none"}.get(succeeded, f"{succeeded:,}")
        parts.append(f"{how_many} succeeded")
    for state, count in outcomes.items():
        is_all = state == "failed_again" and count == tried
        if state not in ("succeeded", *_LEFT) and count and not is_all:
            parts.append(f"{count:,} {_SAID.get(state, state.replace('_', ' '))}")
    left = sum(outcomes.get(state, 0) for state in _LEFT) - parked
    parts += [f"{parked:,} parked"] if parked else []
    parts += [f"{left:,} left as they were"] if left else []
    return ", ".join(parts)
