"""The analyses find what is planted in a simulated history, and nothing else."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from nats.aio.client import Client

from sahool_dlq.analysis.marts.build import build_marts
from sahool_dlq.analysis.report.sections import sections
from sahool_dlq.cli import _command
from sahool_dlq.cli.simulate import command
from sahool_dlq.errors import SimulationError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.incidents import find_incident
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.fleet import BACKGROUND
from sahool_dlq.simulation.run import into_lake, into_stream
from sahool_dlq.simulation.scenario import Scenario
from sahool_dlq.simulation.truth import Truth
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect
from support.platform_log import failures

# One worker has the fixtures of this file, which take long.
pytestmark = pytest.mark.xdist_group("simulation")

UNTIL = datetime(2026, 3, 4, 15, 20, tzinfo=UTC)
Found = tuple[Truth, dict[str, pl.DataFrame]]


def analysed(folder: Path, *, is_quiet: bool) -> Found:
    settings = Settings(home=folder, lake_uri=str(folder / "lake"))
    scenario = Scenario(UNTIL, days=29, hourly=20, seed=11, is_quiet=is_quiet)
    report = into_lake(settings, scenario)
    with connect(Lake(settings.lake)) as connection:
        marts = build_marts(connection, UNTIL)
    return report.truth, {name: pl.DataFrame(table) for name, table in marts.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of four simulated weeks with every kind of problem."""
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def planted(folder: Path) -> Found:
    """Four weeks with every kind of problem, and their marts."""
    return analysed(folder, is_quiet=False)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Four weeks without any special problem, and their marts."""
    return analysed(tmp_path_factory.mktemp("quiet"), is_quiet=True)


def planted_part(part: dict[str, Any] | None) -> dict[str, Any]:
    assert part is not None
    return part


def row(frame: pl.DataFrame, **values: object) -> dict[str, Any]:
    found = frame.filter(**values)
    assert found.height == 1, found
    return found.row(0, named=True)


def test_every_kind_of_failure_is_one_group(planted: Found) -> None:
    truth, marts = planted
    assert set(truth.groups.values()) == set(marts["failure_groups"]["group_id"])
    assert len(truth.groups) == len(set(truth.groups.values())) == len(BACKGROUND) + 3


def test_the_spike_is_found_and_called_escalating(planted: Found) -> None:
    truth, marts = planted
    spike = planted_part(truth.spike)
    found = marts["spikes"].filter("is_spike")
    by_service = found.filter(dimension="service").sort("failure_count", descending=True)
    assert by_service["value"][0] == spike["service"]
    returned_or_new = {"weather", "yield"}
    assert set(by_service["value"]) <= {spike["service"], *returned_or_new}
    assert spike["group_id"] in set(found.filter(dimension="group_id")["value"])
    assert row(marts["failure_groups"], group_id=spike["group_id"])["state"] == "escalating"


def test_the_version_behind_a_bad_deploy_is_named(planted: Found) -> None:
    truth, marts = planted
    deploy = planted_part(truth.bad_deploy)
    new = row(marts["failure_groups"], group_id=deploy["group_id"])
    assert new["state"] == "new"
    assert new["services"] == deploy["service"]
    for subject in ("last 24 hours", deploy["group_id"]):
        named = marts["contributors"].filter(subject=subject, attribute="consumer_version")
        assert deploy["version"] in set(named["value"]), subject


def test_a_bug_that_came_with_a_release_is_told_to_its_cure(planted: Found, folder: Path) -> None:
    """From the release that brings the bug, over one that does not repair it, to one that does."""
    truth, marts = planted
    settings = Settings(home=folder, lake_uri=str(folder / "lake"))
    lake = Lake(settings.lake)
    deploy = planted_part(truth.mended_deploy)
    useless, mended = deploy["not_mended_by"], deploy["mended_by"]
    group = row(marts["failure_groups"], group_id=deploy["group_id"])
    assert (group["state"], group["open_count"]) == ("resolved", 0)
    cases = query(settings, "SELECT * FROM cases").filter(group_id=deploy["group_id"])
    assert set(cases["cause"]) == {"automatic_redrive"}
    assert deploy["at"] < cases["opened_at"].min()
    assert cases["opened_at"].max() < mended["at"] < cases["closed_at"].min()
    assert cases["closed_at"].max() < mended["at"] + timedelta(minutes=10)
    redrives = query(settings, "SELECT * FROM redrives").filter(group_id=deploy["group_id"])
    canary = redrives.filter(pl.col("published_at") < mended["at"])  # of what mends nothing
    assert canary["outcome"].to_list() == ["failed_again"]
    assert redrives.height == cases.height + 1
    letters = lake.read("dead_letters").filter(service=deploy["service"])
    of_group = letters.filter(group_id=deploy["group_id"])
    assert set(of_group["consumer_version"]) == {deploy["version"], useless["version"]}
    [tried] = of_group.filter(pl.col("root_failure_id").is_not_null()).to_dicts()
    assert tried["consumer_version"] == useless["version"]
    for release in (deploy, useless, mended):
        first = letters.filter(consumer_version=release["version"])["dlq_timestamp"].min()
        assert release["at"] <= first <= release["at"] + timedelta(hours=2), release
    restarts = lake.read("service_totals").filter(service=deploy["service"])["started_at"].unique()
    assert {release["at"] for release in (deploy, useless, mended)} < set(restarts)
    versions = {
        release["version"]: row(
            marts["deploys"], service=deploy["service"], consumer_version=release["version"]
        )
        for release in (deploy, useless, mended)
    }
    assert [each["first_seen_at"] for each in versions.values()] == [
        release["at"] for release in (deploy, useless, mended)
    ]
    assert [each["brought"] for each in versions.values()] == [deploy["group_id"], None, None]
    cured = [(each["cured"] or "").split(", ") for each in versions.values()]
    assert [deploy["group_id"] in each for each in cured] == [False, False, True]


def test_the_groups_that_came_with_a_release_are_told_and_no_other(planted: Found) -> None:
    truth, marts = planted
    mended, bad = planted_part(truth.mended_deploy), planted_part(truth.bad_deploy)
    deploys = marts["deploys"]
    assert deploys.height == 8 + 4  # each service has a first version
    later = deploys.filter(pl.col("first_seen_at") > pl.col("first_seen_at").min().over("service"))
    told = later.filter(pl.col("brought").is_not_null()).sort("first_seen_at")
    columns = ("brought", "service", "consumer_version", "first_seen_at")
    assert told.select(columns).rows() == [
        (deploy["group_id"], deploy["service"], deploy["version"], deploy["at"])
        for deploy in (mended, bad)
    ]


def test_the_poison_tenant_is_named_and_no_other(planted: Found) -> None:
    truth, marts = planted
    poison = planted_part(truth.poison_tenant)
    found = marts["poison_tenants"].select("tenant_id", "group_id").to_dicts()
    assert found == [poison]
    named = marts["contributors"].filter(subject=poison["group_id"], attribute="tenant_id")
    assert named["value"].to_list() == [poison["tenant_id"]]


def test_poison_messages_are_found(planted: Found) -> None:
    truth, marts = planted
    found = marts["poison_messages"]
    assert set(truth.redriven_in_vain) == set(found.filter(kind="redriven_in_vain")["failure_id"])
    several = found.filter(kind="several_consumers")
    assert sorted(truth.several_consumers) == sorted(several["original_sequence"])
    assert set(several["consumer_count"]) == {3}


def test_services_that_an_outage_reaches_are_found_with_who_leads_and_by_how_long(
    planted: Found,
) -> None:
    truth, marts = planted
    lags = truth.outages[0]["lag_seconds"]
    found = marts["co_failures"]
    assert set(found["service_a"]) | set(found["service_b"]) == {"weather", *lags}
    for follower, lag in lags.items():
        first, second = sorted(("weather", follower))
        pair = row(found, service_a=first, service_b=second)
        assert pair["leader"] == "weather"
        assert pair["together_count"] >= len(truth.outages) - 1
        assert pair["median_lag_seconds"] == pytest.approx(lag, abs=20)


def test_each_outage_is_one_incident_with_who_failed_first(planted: Found) -> None:
    truth, marts = planted
    found = marts["incidents"].filter(pl.col("service_count") > 1).sort("from_at").to_dicts()
    assert len(found) == len(truth.outages)
    leader, lags = truth.outages[0]["leader"], truth.outages[0]["lag_seconds"]
    minute = timedelta(minutes=1)
    for incident, outage in zip(found, truth.outages, strict=True):
        assert incident["services"] == ", ".join([leader, *sorted(lags, key=lags.__getitem__)])
        assert incident["group_count"] == 3
        assert abs(incident["from_at"] - outage["from"]) <= minute
        assert abs(incident["until_at"] - outage["until"]) <= minute
        assert incident["failure_count"] == incident["cured_count"] + incident["open_count"]
        assert incident["cured_count"] > 0.9 * incident["failure_count"]
    alone = marts["incidents"].filter(service_count=1)
    assert set(alone["services"]) <= {"billing", "irrigation", "soil", "tiles", "yield"}


def test_an_incident_is_shown_with_its_timeline(
    planted: Found, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, marts = planted
    monkeypatch.setenv("COLUMNS", "160")

    def dlq(*arguments: str) -> str:
        flags = ("--lake-uri", str(folder / "lake"), "--as-of", UNTIL.isoformat())
        done = CliRunner().invoke(_command(), [*arguments, *flags], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    newest = marts["incidents"].filter(pl.col("service_count") > 1).row(0, named=True)
    id_ = newest["incident_id"]
    listed = json.loads(dlq("incidents", "--json"))["incidents"]
    assert [each["incident_id"] for each in listed] == marts["incidents"]["incident_id"].to_list()
    of_ndvi = json.loads(dlq("incidents", "--service", "ndvi", "--json"))["incidents"]
    assert {tuple(each["services"]) for each in of_ndvi} == {("weather", "irrigation", "ndvi")}
    assert id_ in dlq("incidents")
    told = json.loads(dlq("incident", id_, "--json"))
    assert told["incident"]["groups"] == [group["group_id"] for group in told["groups"]]
    kinds = [step["kind"] for step in told["timeline"]]
    assert kinds.count("outbreak.began") == kinds.count("outbreak.ended") == 3
    assert {"peak", "redrive.published", "redrive.succeeded"} <= set(kinds)
    times = [step["at"] for step in told["timeline"]]
    assert times == sorted(times)
    cured = sum(s["count"] for s in told["timeline"] if s["kind"] == "redrive.succeeded")
    assert cured == newest["cured_count"]
    shown = dlq("incident", id_)
    assert "weather, then irrigation, ndvi" in shown
    draft = dlq("incident", id_, "--postmortem")
    assert draft.startswith("# Post-mortem: weather, then irrigation, ndvi, ")
    assert all(f"## {part}" in draft for part in ("Impact", "Timeline", "Cause", "Actions"))
    dlq("incident", id_, "--html", str(folder / "incident.html"))
    page = (folder / "incident.html").read_text()
    drawn = page[page.index("<figure>") : page.index("</figure>")]
    lanes = [drawn.index(f">{name}</text>") for name in ("weather", "irrigation", "ndvi")]
    assert lanes == sorted(lanes)
    done = drawn.index(">redriven</text>")
    assert lanes[-1] < done
    found = find_incident(Settings(lake_uri=str(folder / "lake")), id_, UNTIL)
    own = found.course.minutes.filter("is_in", kind="failed")
    assert own["count"].sum() == newest["failure_count"]
    joined = own.group_by("service").agg(pl.col("first_at").min()).sort("first_at")
    assert joined["service"].to_list() == ["weather", "irrigation", "ndvi"]
    assert joined["first_at"][0] == newest["from_at"]


def test_a_group_that_was_repaired_and_returns_has_regressed_and_no_other(
    planted: Found,
) -> None:
    truth, marts = planted
    regressed = marts["failure_groups"].filter(state="regressed")
    assert regressed["group_id"].to_list() == [planted_part(truth.regression)["group_id"]]


def test_the_hours_in_which_a_service_fails_more_stand_out(planted: Found) -> None:
    truth, marts = planted
    habit = planted_part(truth.habit)
    cells = marts["hour_of_week"].filter(value=habit["service"])
    top = cells.sort("failure_count", descending=True).head(2)
    assert sorted(top["hour_of_week"]) == habit["hours_of_week"]
    assert cells["p_value"].max() < 1e-6
    assert (top["weeks_hit"] == top["week_count"]).all()


def test_the_report_names_the_habit_and_no_hour_of_a_single_outage(planted: Found) -> None:
    truth, marts = planted
    log = pl.DataFrame({"missing_count": 0, "unreadable_count": 0, "last_at": UNTIL})
    told = {part.title: part for part in sections({**marts, "log": log}, UNTIL)}
    habit = planted_part(truth.habit)
    assert [row[:2] for row in told["Hours of the week"].rows] == [
        (habit["service"], f"Monday {hour:02}:00") for hour in habit["hours_of_week"]
    ]


@pytest.mark.parametrize("history", ["planted", "quiet"])
def test_median_resolution_times_are_near_the_planted(
    history: str, request: pytest.FixtureRequest
) -> None:
    truth, marts = request.getfixturevalue(history)
    assert len(truth.resolution_median_seconds) == 6
    for group, median in truth.resolution_median_seconds.items():
        found = row(marts["resolution_times"], dimension="group_id", value=group)
        assert found["median_seconds"] == pytest.approx(median, rel=0.15), group


@pytest.mark.parametrize("history", ["planted", "quiet"])
def test_redrives_succeed_as_often_as_planted(history: str, request: pytest.FixtureRequest) -> None:
    truth, marts = request.getfixturevalue(history)
    assert len(truth.redrive_chance) == 4
    for group, chance in truth.redrive_chance.items():
        found = row(marts["redrive_outcomes"], group_id=group)
        assert found["success_rate"] == pytest.approx(chance, abs=0.03), group
        judged = row(marts["failure_groups"], group_id=group)
        assert judged["redrive_chance"] == pytest.approx(chance, abs=0.06), group


def test_nothing_is_found_where_nothing_happens(quiet: Found) -> None:
    _, marts = quiet
    assert marts["spikes"].filter("is_spike").is_empty()
    assert marts["co_failures"].is_empty()
    assert marts["incidents"].is_empty()
    assert marts["poison_tenants"].is_empty()
    assert marts["poison_messages"].is_empty()
    groups = marts["failure_groups"]
    assert set(groups["state"]) <= {"ongoing", "resolved"}, groups.select("template", "state")
    assert not groups["is_escalating"].any()
    assert set(marts["service_health"]["alert"].drop_nulls()) == {"none"}
    # A group belongs to one service, and has no other special property.
    assert set(marts["contributors"]["attribute"]) <= {"service", "event_type"}
    assert marts["contributors"]["other_attribute"].null_count() == marts["contributors"].height
    assert marts["hour_of_week"]["p_value"].min() > 1e-4


def test_the_same_seed_writes_the_same_history(tmp_path: Path) -> None:
    def written(name: str, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, Truth]:
        settings = Settings(home=tmp_path, lake_uri=str(tmp_path / name))
        report = into_lake(settings, Scenario(UNTIL, 2, 10, seed))
        lake = Lake(settings.lake)
        letters = lake.read("dead_letters").sort("dlq_sequence")
        return letters, lake.read("service_totals").sort("totals_sequence"), report.truth

    first, again, other = written("first", 5), written("again", 5), written("other", 6)
    assert first[0].equals(again[0])
    assert first[1].equals(again[1])
    assert first[2] == again[2]
    assert not first[0]["failure_id"].is_in(other[0]["failure_id"].implode()).any()


def test_a_history_ends_when_it_should(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, lake_uri=str(tmp_path / "lake"))
    scenario = Scenario(UNTIL, 2, 10, 3)
    report = into_lake(settings, scenario)
    letters = Lake(settings.lake).read("dead_letters")
    assert letters["parse_error"].null_count() == letters.height == report.dead_letters
    assert UNTIL - timedelta(days=2) <= letters["published_at"].min() <= UNTIL
    assert letters["published_at"].max() < UNTIL
    events = Lake(settings.lake).read("case_events")
    assert events["parse_error"].null_count() == events.height == report.case_events


def test_a_lake_that_holds_data_is_refused_unless_told(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, lake_uri=str(tmp_path / "lake"))
    scenario = Scenario(UNTIL, 1, 5, 3)
    first = into_lake(settings, scenario)
    with pytest.raises(SimulationError, match="holds data already"):
        into_lake(settings, scenario)
    with pytest.raises(SimulationError, match="a history of this time already"):
        into_lake(settings, scenario, is_added=True)
    earlier = replace(scenario, until=UNTIL - timedelta(days=1), seed=4)
    second = into_lake(settings, earlier, is_added=True)
    assert query(settings, "SELECT count(*) FROM dead_letters").item() == (
        first.dead_letters + second.dead_letters
    )


async def test_a_history_in_the_log_is_drained_as_any_other(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    scenario = Scenario(datetime.now(UTC), 2, 10, 3)
    report = await into_stream(settings, scenario)
    with pytest.raises(SimulationError, match="messages already"):
        await into_stream(settings, scenario)
    drained = await drain_log(settings)
    assert drained.drained == report.dead_letters + report.case_events
    assert drained.quarantined == 0
    assert len(failures(settings)) == report.dead_letters
    aside = settings.model_copy(update={"lake_uri": str(tmp_path / "aside")})
    assert into_lake(aside, scenario).truth == report.truth
    columns = "failure_id, status, redrive_count, cause, closed_at, group_id"
    statement = f"SELECT {columns} FROM cases ORDER BY failure_id"
    assert query(settings, statement).equals(query(aside, statement))


async def test_an_empty_database_takes_a_simulated_lake_over(
    settings: Settings, client: Client
) -> None:
    flags = ("--nats-url", settings.nats_url.get_secret_value(), "--lake-uri", settings.lake)
    stream = {"DLQ_DLQ_STREAM": settings.dlq_stream, "DLQ_HOME": str(settings.home)}
    arguments = [*flags, "--days", "2", "--rate", "5", "--json"]
    done = CliRunner(env=stream).invoke(command, arguments)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    written = json.loads((settings.home / "simulated.json").read_text())
    assert written["bad_deploy"]["version"] == report["truth"]["bad_deploy"]["version"] == "2.4.0"
    await drain_log(settings)
    rows = failures(settings)
    assert len(rows) == report["dead_letters"]
    assert (await verify_stores(settings)).findings == ()
    refused = CliRunner(env=stream).invoke(command, arguments)
    assert refused.exit_code == 1
    assert "holds data already" in refused.stderr
