"""What separates failing events from succeeding ones, in numbers and in a sentence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sahool_dlq.analysis.why.features import Feature
from sahool_dlq.analysis.why.observation import HOUR, TIME

__all__ = ["Comparison", "Difference", "condition_in_words", "conditions_in_words"]

_TYPES = {"array": "an array", "object": "an object", "null": "null"}


@dataclass(frozen=True, slots=True)
class Difference:
    """A condition, or several that hold together, which failing events meet more often."""

    conditions: tuple[Feature, ...]
    failing: int  # that meet it
    of_failing: int
    succeeding: int
    of_succeeding: int
    p: float  # Fisher's exact test, adjusted for all conditions that were tried
    since: datetime | None = None  # earlier events do not meet it; None if they do
    origin: tuple[Feature, ...] = ()  # who sends what meets it, if others seldom send it

    @property
    def share_of_failing(self) -> float:
        """From 0 to 1."""
        return self.failing / self.of_failing

    @property
    def share_of_succeeding(self) -> float:
        """From 0 to 1."""
        return self.succeeding / self.of_succeeding

    @property
    def lift(self) -> float:
        """How many times more often failing events meet it, with half an event added to each."""
        failing = (self.failing + 0.5) / (self.of_failing + 1)
        return failing / ((self.succeeding + 0.5) / (self.of_succeeding + 1))

    def __str__(self) -> str:
        said = conditions_in_words(self.conditions)
        shares = (
            f"{_percent(self.share_of_failing)} of the failing,"
            f" {_percent(self.share_of_succeeding)} of the succeeding"
        )
        begun = [f"since {self.since:%Y-%m-%d %H:%M} UTC"] if self.since else []
        sent = [f"with {_said(each)}" for each in self.origin]
        more = ", ".join(begun + sent)
        return f"{said} in {shares}{f'; {more}' if more else ''}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON; with the sentence."""
        return {
            **asdict(self),
            "conditions": [each._asdict() for each in self.conditions],
            "origin": [each._asdict() for each in self.origin],
            "share_of_failing": self.share_of_failing,
            "share_of_succeeding": self.share_of_succeeding,
            "lift": self.lift,
            "sentence": str(self),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences, the strongest first, or why there are none."""

    failing: int  # events that were compared
    succeeding: int
    differences: tuple[Difference, ...]
    why_none: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "differences": [each.as_dict() for each in self.differences]}


def conditions_in_words(conditions: Sequence[Feature]) -> str:
    """Several conditions that hold together, as one text."""
    return " and ".join(map(condition_in_words, conditions))


def condition_in_words(feature: Feature) -> str:
    """One condition as text: `data.unit` = acre."""
    kind, path, value = feature
    name = f"`{path}`" if path.startswith(("data", "headers.")) else path
    if kind in ("above", "below") and path == TIME:
        at = datetime.fromtimestamp(float(value or 0), UTC)
        return f"stored {'after' if kind == 'above' else 'before'} {at:%Y-%m-%d %H:%M:%S} UTC"
    said = value if isinstance(value, str) else _number(value)
    words = {
        "missing": f"{name} is missing",
        "present": f"{name} is present",
        "type": f"{name} is {_TYPES.get(str(value), f'a {value}')}",
        "value": f"{name} = {said or '(empty)'}",
        "not": f"{name} is not {said or '(empty)'}",
        "above": f"{name} > {said}",
        "below": f"{name} < {said}",
        "longer": f"{name} is longer than {said}",
        "shorter": f"{name} is shorter than {said}",
    }
    return words[kind]


def _said(feature: Feature) -> str:
    """A condition about who sent it: `producer 3.1`."""
    said = feature.value if isinstance(feature.value, str) else _number(feature.value)
    return f"{feature.path} {said}" if feature.path != HOUR else f"hour {said}"


def _number(value: float | bool | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:,.10g}" if value is not None else ""


def _percent(share: float) -> str:
    """With as many digits as it needs: 94 %, 0.2 %."""
    percent = 100 * share
    if percent in (0, 100) or 1 <= percent <= 99:
        return f"{percent:.0f} %"
    return f"{percent:.2g} %" if percent < 1 else f"{min(percent, 99.9):.1f} %"
