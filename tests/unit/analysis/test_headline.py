"""The report's first sentence, from marts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from sahool_dlq.analysis.report.headline import headline

NOW = datetime(2026, 3, 2, 15, 20, tzinfo=UTC)


def frames(
    *,
    spikes: list[tuple[str, int, float]] = (),
    minutes: list[int] = (),
    chance: float = 0.7,
    open_count: int = 9,
    is_old: bool = True,
    last_at: datetime | None = NOW,
) -> dict[str, pl.DataFrame]:
    """The service tiles failed ten times `minutes` ago; in an old log, maps failed long ago."""
    group: dict[str, Any] = {
        "open_count": open_count,
        "parked_count": 0,
        "redrive_chance": chance,
        "services": "maps, tiles",
        "failure_count": 30,
        "redrive_succeeded_count": 21,
    }
    ago = [*minutes, *([9_000] if is_old else [])]
    times = pl.Series("minute_at", [NOW - timedelta(minutes=number) for number in ago])
    return {
        "log": pl.DataFrame({"last_at": [last_at]}, schema={"last_at": pl.Datetime("us", "UTC")}),
        "spikes": pl.DataFrame(
            {
                "dimension": ["service" for _ in spikes],
                "value": [name for name, _, _ in spikes],
                "failure_count": [count for _, count, _ in spikes],
                "expected_count": [expected for _, _, expected in spikes],
                "is_spike": [True for _ in spikes],
            },
            schema={
                "dimension": pl.String, "value": pl.String, "failure_count": pl.Int64,
                "expected_count": pl.Float64, "is_spike": pl.Boolean,
            },
        ),
        "failures_minutely": pl.DataFrame(
            {
                "minute_at": times.cast(pl.Datetime("us", "UTC")),
                "service": ["tiles"] * len(minutes) + ["maps"] * is_old,
                "failure_count": [10] * len(ago),
            }
        ),
        "failure_groups": pl.DataFrame([group]),
        "service_health": pl.DataFrame({"oldest_open_age_seconds": [7_200.0]}),
    }  # fmt: skip


def test_the_worst_service_is_named_with_how_much_since_when_and_what_helps() -> None:
    found = frames(spikes=[("maps", 12, 2.0), ("tiles", 70, 10.0)], minutes=[0, 5, 30, 44, 200])
    assert headline(found, NOW) == (
        "tiles is failing 7× more than usual since 14:36 UTC (70 in the last hour); likely cured by"
        " a redrive; 1 other service fails more than usual, too."
    )


@pytest.mark.parametrize(
    ("chance", "said"), [(0.1, "mend the cause first"), (0.3, "a redrive may help")]
)
def test_a_redrive_is_recommended_only_where_it_may_help(chance: float, said: str) -> None:
    assert said in headline(frames(spikes=[("tiles", 70, 10.0)], chance=chance), NOW)


def test_a_service_that_never_failed_has_no_ratio_and_yesterday_its_date() -> None:
    told = headline(frames(spikes=[("tiles", 70, 0.0)], minutes=list(range(0, 1_000, 20))), NOW)
    assert told.startswith(
        "tiles is failing since 2026-03-01 23:00 UTC (70 in the last hour, usually none)"
    )


def test_a_quiet_platform_says_so() -> None:
    assert headline(frames(), NOW) == (
        "No service fails more than usual; 9 failures are open in 1 group, the oldest for 2.0 h."
    )
    assert headline(frames(open_count=0), NOW).startswith("No failure is open")
    assert headline(frames(last_at=None), NOW).startswith("The lake is empty")


def test_an_outbreak_began_after_the_latest_steps_that_were_no_worse_than_usual() -> None:
    """Ten failures in each minute of it; before it ten in each step, which is usual here."""
    always = list(range(0, 300, 10))
    outbreak = [*range(40), *always]
    told = headline(frames(spikes=[("tiles", 400, 60.0)], minutes=outbreak), NOW)
    assert " since 14:41 UTC " in told


def test_what_is_closed_again_is_reported_after_what_is_open() -> None:
    spikes = [("maps", 90, 1.0), ("others", 400, 1.0)]
    assert headline(frames(spikes=spikes), NOW).startswith("maps is failing 90× more")
    closed = headline(frames(spikes=spikes[1:]), NOW)
    assert "; nothing of it is open any more." in closed


def test_in_its_first_hour_nothing_is_usual() -> None:
    young = frames(spikes=[("tiles", 30, 0.0)], minutes=[3, 4, 5], is_old=False, chance=0.1)
    assert headline(young, NOW) == (
        "30 events failed, redrives cured 21; 9 are open in 1 group; a redrive is unlikely to help,"
        " so mend the cause first."
    )
    cured = frames(minutes=[3], is_old=False, open_count=0)
    assert headline(cured, NOW) == "30 events failed, redrives cured 21; nothing is open."
