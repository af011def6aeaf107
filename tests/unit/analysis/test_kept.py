"""The marts that a lake keeps, after drains in steps and other changes of the lake."""

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sahool_dlq.analysis.marts import increments, views
from sahool_dlq.analysis.marts.build import DAILY, MARTS, build_marts
from sahool_dlq.analysis.marts.incremental_build import daily_marts, update_marts
from sahool_dlq.analysis.report.sections import NEEDED_MARTS
from sahool_dlq.jobs.marts import compute_marts
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.lake.maintenance import care_for
from sahool_dlq.stores.lake.sql import connect

UNTIL = datetime(2026, 3, 4, 15, 20, tzinfo=UTC)
Frames = dict[str, pl.DataFrame]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """The log of five simulated days."""
    folder = tmp_path_factory.mktemp("history")
    settings = Settings(home=folder, lake_uri=str(folder / "lake"))
    into_lake(settings, Scenario(UNTIL, days=5, hourly=3, seed=4))
    return {name: Lake(settings.lake).read(name).sort("dlq_sequence") for name in LOG_TABLES}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, history: Frames) -> Path:
    """A lake of the first 60 % of it, its marts built."""
    folder = tmp_path_factory.mktemp("kept")
    lake = Lake(str(folder / "lake"))
    lake.table("service_totals")
    drain(lake, history, 0, 0.6)
    assert update_marts(lake, UNTIL).is_rebuilt
    return folder / "lake"


@pytest.fixture
def lake(kept: Path, tmp_path: Path) -> Lake:
    """A copy of it."""
    return Lake(str(shutil.copytree(kept, tmp_path / "lake")))


def drain(lake: Lake, history: Frames, start: float, end: float, epoch: str | None = None) -> None:
    """Append a part of the history."""
    last = max(frame["dlq_sequence"][-1] for frame in history.values())
    is_wanted = pl.col("dlq_sequence").is_between(int(start * last) + 1, int(end * last))
    for name, frame in history.items():
        rows = frame.filter(is_wanted)
        if epoch:
            rows = rows.with_columns(epoch=pl.lit(epoch))
        lake.table(name).append(rows, rows["epoch"][0], int(end * last))


def check(lake: Lake, *, is_rebuilt: bool) -> None:
    """Check that a run updates in this way, and that its marts equal those of a full build."""
    with connect(lake) as connection, daily_marts(connection, lake) as was_rebuilt:
        assert was_rebuilt == is_rebuilt
    check_kept(lake, DAILY)


def check_kept(lake: Lake, names: Sequence[str]) -> None:
    with connect(lake) as connection:
        expected = build_marts(connection, UNTIL, names)
    for name in names:
        whole = rows(pl.DataFrame(expected[name]))
        found = lake.read(f"marts/{name}").select(whole.columns)
        assert_frame_equal(rows(found), whole, rel_tol=1e-9)


def rows(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(frame.columns)


def test_drains_are_added_also_where_the_lake_was_compacted_between(
    lake: Lake, history: Frames
) -> None:
    drain(lake, history, 0.6, 0.8)
    check(lake, is_rebuilt=False)
    care_for(lake, UNTIL, None)
    drain(lake, history, 0.8, 0.801)
    care_for(lake, UNTIL, None)
    check(lake, is_rebuilt=False)
    built = update_marts(lake, UNTIL)  # nothing came
    assert not built.is_rebuilt
    check_kept(lake, MARTS)
    assert built.rows == {name: lake.read(f"marts/{name}").height for name in MARTS}


def test_a_new_epoch_is_added(lake: Lake, history: Frames) -> None:
    drain(lake, history, 0.6, 0.9, "SAHOOL_DLQ@2026-03-02T00:00:00Z#0")
    check(lake, is_rebuilt=False)


def no_rows(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.clear()


def other_group(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(group_id=pl.lit("0123456789abcdef"))


@pytest.mark.parametrize("change", [no_rows, other_group])
def test_history_that_was_changed_is_counted_again(
    lake: Lake, change: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    table = lake.table("dead_letters")
    file = table.files[0]
    table.replace([file], [change(table.read(file))], UNTIL, is_data_change=False)
    check(lake, is_rebuilt=True)


def test_an_epoch_that_turns_up_before_others_is_counted_with_them(
    lake: Lake, history: Frames
) -> None:
    earlier = {
        name: frame.with_columns(pl.col("published_at") - timedelta(days=30))
        for name, frame in history.items()
    }
    drain(lake, earlier, 0.6, 0.7, "SAHOOL_DLQ@2026-01-01T00:00:00Z#0")
    check(lake, is_rebuilt=True)


def test_marts_that_a_killed_run_left_half_written_are_built_again(
    lake: Lake, history: Frames
) -> None:
    drain(lake, history, 0.6, 0.7)
    lake.overwrite(f"marts/{DAILY[0]}", lake.read(f"marts/{DAILY[0]}").head(1), by_day=True)
    check(lake, is_rebuilt=True)


def test_other_rules_count_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "DEFAULT_REDRIVE_CAP", 1)
    check(lake, is_rebuilt=True)
    check(lake, is_rebuilt=False)


def test_marts_that_are_up_to_date_are_read_and_say_what_a_whole_count_does(
    lake: Lake, history: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain(lake, history, 0.6, 1.0)
    update_marts(lake, UNTIL)
    with connect(lake) as connection:
        expected = build_marts(connection, UNTIL, NEEDED_MARTS)
    monkeypatch.delattr(increments, "make_chains")  # nothing of the log is counted again
    later = Settings(lake_uri=lake.uri)
    found = compute_marts(later, NEEDED_MARTS, UNTIL)
    for name in NEEDED_MARTS:
        whole = rows(pl.DataFrame(expected[name]))
        assert_frame_equal(rows(found[name].select(whole.columns)), whole, rel_tol=1e-9)
