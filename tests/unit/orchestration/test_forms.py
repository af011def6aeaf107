"""The meaning of the redrive forms, and that Prefect can draw them."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from sahool_dlq.errors import RedriveError
from sahool_dlq.orchestration.forms import (
    AsItWas,
    Changed,
    Events,
    Failures,
    Further,
    NoFurther,
    replay_selection,
    selection,
)
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.replay.selection import ReplaySelection


def test_what_is_left_empty_says_nothing() -> None:
    assert selection(Failures(), NoFurther()) == Selection()
    assert selection(Failures(), Further()) == Selection()
    assert AsItWas().order("ann", "mended") == Order("manual", "ann", "mended", own_copy=False)
    assert Changed().order("ann", "mended") == AsItWas().order("ann", "mended")


def test_what_is_filled_in_counts() -> None:
    chosen = selection(
        Failures(service="ndvi", error_type="KeyError", group="1f0c", failed_within="24h"),
        Further(
            tenant="acme", subject="a.*", event_type="b", where="redrive_count = 0", limit=7,
            failure_ids=["x"], version="2.4",
        ),
    )  # fmt: skip
    assert chosen.since is not None
    assert datetime.now(UTC) - chosen.since - timedelta(hours=24) < timedelta(minutes=1)
    assert chosen == Selection(
        ("x",), "1f0c", ("KeyError",), "ndvi", "2.4", "acme", "b", "a.*", chosen.since,
        where="redrive_count = 0", limit=7,
    )  # fmt: skip
    changed = Changed(
        addressed_to="S/c", edit={"unit": "ha"}, per_second=2, oldest_event="1h", own_copy=True
    )
    assert changed.order("ann", "mended") == Order(
        "manual", "ann", "mended", None, {"unit": "ha"}, 2, "S/c", 3_600, True
    )
    changed = Changed(edit={"unit": "ha"}, headers={"X-Unit": "ha"})
    parts = [{"body": {"unit": "ha"}, "headers": {"X-Unit": "ha"}}]
    assert changed.order("ann", "mended").patch == parts


def test_the_events_of_a_replay_are_selected_as_by_the_command() -> None:
    chosen = replay_selection(
        "c", Events(since="seq:7", until="2026-03-01", subject="a.*", limit=3)
    )
    until = datetime(2026, 3, 1, tzinfo=UTC)
    assert chosen == ReplaySelection("c", 7, until, "a.*", limit=3)
    assert replay_selection("c", Events(where="event_id = 'e'")).where == "event_id = 'e'"
    with pytest.raises(RedriveError, match="Say what to replay"):
        replay_selection("c", Events())


def test_the_form_of_a_change_is_told_from_none() -> None:
    """Prefect sends the fields of the chosen option, or nothing."""
    delivery: TypeAdapter[AsItWas | Changed] = TypeAdapter(AsItWas | Changed)
    assert delivery.validate_python({}) == AsItWas()
    assert delivery.validate_python({"own_copy": True}) == Changed(own_copy=True)
    further: TypeAdapter[NoFurther | Further] = TypeAdapter(NoFurther | Further)
    assert further.validate_python({"limit": 5}) == Further(limit=5)


@pytest.mark.parametrize("form", [Failures, Further, Changed, Events])
def test_a_form_keeps_its_order_and_asks_for_no_none(form: type[BaseModel]) -> None:
    fields = form.model_json_schema()["properties"]
    assert [field["position"] for field in fields.values()] == list(range(len(form.model_fields)))
    assert list(fields) == list(form.model_fields)
    assert all("anyOf" not in field and field["description"] for field in fields.values())


@pytest.mark.parametrize("form", [Failures, NoFurther, Further, AsItWas, Changed, Events])
def test_a_field_that_there_is_not_is_refused_rather_than_left_out(form: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="tenant_id"):
        form.model_validate({"tenant_id": "acme"})
