"""The checker of histories finds each planted fault, and nothing in a correct history."""

from collections.abc import Callable
from typing import Any

import pytest

from support.history import (
    CHECKS,
    FAILED,
    Batch,
    Call,
    Case,
    Deed,
    Event,
    History,
    Redrive,
    Service,
    Told,
    faults,
    name_of,
)

NDVI, HEALTHY, RESCUE = "EVENTS/ndvi", "EVENTS/healthy", "EVENTS/rescue"
BODY, EDITED = b'{"unit": "acre", "legacy": 1}', b'{"unit": "ha"}'
PATCH = {"unit": "ha", "legacy": None}


def marked(redrive: str, root: str, to: str | None = NDVI) -> dict[str, str]:
    """The headers of a redrive."""
    marks = {"Dlq-Redrive-Of": root, "Dlq-Redrive-Id": redrive}
    return marks | ({"Dlq-Redrive-For": to} if to else {})


def event(sequence: int, at: float, headers: dict[str, str] | None = None, **more: Any) -> Event:
    place = {"subject": "t.analysis.ndvi", "body": BODY, **more}
    return Event("EVENTS", sequence, at, headers=headers or {}, **place)


def call(sequence: int, began: float, outcome: str, redrive: Any = None, by: str = NDVI) -> Call:
    root = redrive and redrive.partition("-")[0]
    return Call(by, sequence, began, began + 0.5, outcome, redrive, root)


def told(kind: str, failure: str, at: float, redrive: str = "", **more: Any) -> Told:
    attempt = int(redrive.partition("-")[2]) if redrive else None
    return Told(kind, failure, at, redrive_id=redrive or None, attempt=attempt, **more)


def letter(failure: str, at: float, sequence: int, redrive: str = "", by: str = NDVI) -> Told:
    root = redrive.partition("-")[0] or None
    return told(FAILED, failure, at, redrive, consumer=by, root=root, sequence=sequence)


def sound() -> History:
    """Failure `a`: redriven twice, handled the second time. `b`: edited, handled, not reported.
    `c`: redirected to another service, and handled there. Their redrives are `a-1`, `a-2`, …
    """
    stores = {
        "a": Case("resolved", 1, "automatic_redrive"),
        "b": Case("pending", 1),
        "c": Case("resolved", 0, "manual_redrive"),
    }
    return History(
        cap=2,
        services=[
            Service(NDVI, "t.analysis.*", 1),
            Service(HEALTHY, "t.analysis.*", 0),
            Service(RESCUE, "t.actions.*", 0),
        ],
        events=[
            *(event(n, n) for n in (1, 2, 3)),
            event(4, 20, marked("a-1", "a")),
            event(5, 30, marked("a-2", "a")),
            event(6, 40, marked("b-1", "b"), body=EDITED),
            event(7, 50, marked("c-1", "c", None), subject="t.actions.rescue"),
        ],
        calls=[
            *(call(n, 10 + n + again, "failure") for n in (1, 2, 3) for again in (0, 0.6)),
            *(call(n, 10, "success", by=HEALTHY) for n in (1, 2, 3)),
            call(4, 21, "failure", "a-1"),
            call(4, 22, "failure", "a-1"),
            call(5, 31, "success", "a-2"),
            call(6, 41, "success", "b-1"),
            call(7, 51, "success", "c-1", by=RESCUE),
        ],
        log=[
            *(letter(failure, 15, n) for n, failure in enumerate("abc", 1)),
            told("redrive.published", "a", 19, "a-1"),
            letter("d", 23, 4, "a-1"),
            told("redrive.published", "a", 29, "a-2"),
            told("redrive.succeeded", "a", 32, "a-2", consumer=NDVI),
            told("redrive.published", "b", 39, "b-1"),
            told("redrive.outcome_unknown", "b", 45, "b-1"),
            told("redrive.published", "c", 49, "c-1"),
            told("redrive.succeeded", "c", 52, "c-1", consumer=NDVI),
        ],
        redrives=[
            Redrive("a-1", "a", 1, "batch-1", "failed_again", 18),
            Redrive("a-2", "a", 2, "batch-1", "succeeded", 28),
            Redrive("b-1", "b", 1, "batch-2", "outcome_unknown", 38),
            Redrive("c-1", "c", 1, "batch-3", "succeeded", 48),
        ],
        batches={
            "batch-1": Batch("done"),
            "batch-2": Batch("done", is_by_ids=True, patch=PATCH),
            "batch-3": Batch("done", redirect_to="t.actions.rescue"),
        },
        deeds=[Deed("parked", ("c",), 11, 12), Deed("unparked", ("c",), 13, 14)],
        stores={"the stream": stores, "Postgres": dict(stores), "the lake": dict(stores)},
    )


def test_a_sound_history_has_no_faults() -> None:
    assert faults(sound()) == []


def everywhere(failure: str, *case: Any) -> Callable[[History], None]:
    """Set the state of a failure in every store."""

    def plant(history: History) -> None:
        for store in history.stores.values():
            store[failure] = Case(*case)

    return plant


def change(where: str, index: int, **changes: Any) -> Callable[[History], None]:
    """Change one item of the history."""

    def plant(history: History) -> None:
        items = getattr(history, where)
        items[index] = items[index]._replace(**changes)

    return plant


def add(where: str, *new: Any) -> Callable[[History], None]:
    """Add items to the history."""
    return lambda history: getattr(history, where).extend(new)


def drop(where: str, index: int) -> Callable[[History], None]:
    """Remove items from the history."""
    return lambda history: getattr(history, where).pop(index)


def all_of(*plants: Callable[[History], None]) -> Callable[[History], None]:
    """Do several of these."""
    return lambda history: [plant(history) for plant in plants] and None


PLANTED = {
    "published twice": [add("events", event(8, 33, marked("a-2", "a")))],
    "published unrecorded": [
        drop("log", 3),  # the log has no message about it
        change("log", 3, at=20.5),  # or too late
        change("redrives", 1, state="cancelled"),
        change("redrives", 3, state="refused"),
    ],
    "published otherwise": [
        change("events", 4, body=b"{}"),
        change("events", 5, body=BODY),
        change("events", 6, subject="t.actions.other"),
        change("events", 3, headers=marked("a-1", "a", HEALTHY)),
    ],
    "reached another": [add("calls", call(5, 31, "success", "a-2", by=HEALTHY))],
    "success invented": [
        change("calls", 11, outcome="failure"),  # a-2 was not handled
        change("calls", 11, began=5, ended=6),  # … after it had failed
        change("calls", 11, consumer=HEALTHY),
        all_of(drop("calls", 12), everywhere("b", "resolved", 1, "manual_redrive")),
        add("log", told("redrive.succeeded", "b", 46, "b-2", consumer=NDVI)),
    ],
    "success lost": [
        everywhere("a", "pending", 2),
        all_of(everywhere("c", "parked", 1), change("redrives", 3, state="expired")),
        change("redrives", 2, state="failed_again"),
    ],
    "cap passed": [
        all_of(
            add("redrives", Redrive("b-3", "b", 3, "batch-1", "outcome_unknown", 60)),
            add("events", event(8, 61, marked("b-3", "b"))),
        ),
        everywhere("b", "pending", 2),
    ],
    "two out at once": [
        change("log", 4, at=33),  # the first failed only when the second was out
        drop("log", 4),
        change("log", 4, consumer=HEALTHY),  # another's failure says nothing
    ],
    "failure lost": [
        drop("log", 2),
        drop("calls", 6),  # the healthy one was never given an event
        change("calls", 12, outcome="cut off"),
    ],
    "failure invented": [
        drop("calls", 0),
        add("log", letter("e", 16, 1, by=HEALTHY)),
    ],
    "decision ignored": [
        add("deeds", Deed("parked", ("a",), 24, 25)),
        add("deeds", Deed("discarded", ("b",), 24, 25)),
        add("deeds", Deed("paused", ("batch-1",), 19, 20), Deed("resumed", ("batch-1",), 29, 30)),
        add("deeds", Deed("cancelled", ("batch-1",), 19, 20)),
    ],
    "left over": [
        everywhere("b", "retried", 1),
        change("redrives", 2, state="published"),
        add("redrives", Redrive("b-2", "b", 2, "batch-1", "planned")),
    ],
    "stores differ": [
        lambda history: history.stores["the lake"].pop("b"),
        lambda history: history.stores["Postgres"].update(b=Case("parked", 1)),
    ],
}


def test_every_check_has_planted_faults() -> None:
    assert list(PLANTED) == [name_of(check) for check in CHECKS]


@pytest.mark.parametrize(
    ("name", "plant"),
    [(name, plant) for name, plants in PLANTED.items() for plant in plants],
    ids=[f"{name} {n}" for name, plants in PLANTED.items() for n in range(1, len(plants) + 1)],
)
def test_a_planted_fault_is_found(name: str, plant: Callable[[History], None]) -> None:
    history = sound()
    plant(history)
    found = faults(history)
    assert any(fault.startswith(f"{name}: ") for fault in found), found


@pytest.mark.parametrize(
    "plant",
    [
        add("deeds", Deed("parked", ("b",), 24, 25)),  # a person named it all the same
        add("deeds", Deed("parked", ("a",), 24, 25), Deed("unparked", ("a",), 26, 27)),
        add("deeds", Deed("parked", ("a",), 17, 18.5)),  # its redrive was announced after that
        all_of(  # a person named it, and it failed again
            add("deeds", Deed("parked", ("a",), 16, 17)),
            change("redrives", 0, batch_id="batch-4"),
            lambda history: history.batches.update({"batch-4": Batch("done", is_by_ids=True)}),
        ),
        add("deeds", Deed("paused", ("batch-1",), 19, 20), Deed("resumed", ("batch-1",), 21, 22)),
        everywhere("a", "discarded", 1),
        everywhere("b", "resolved", 1, "manual"),
        all_of(
            everywhere("b", "pending", 2),
            add("log", told("triage.unparked", "b", 60)),
        ),
        add("calls", call(1, 12, "cut off"), call(1, 12, "failure")),  # it was delivered again
    ],
)
def test_what_a_person_or_a_killed_server_may_do_is_no_fault(
    plant: Callable[[History], None],
) -> None:
    history = sound()
    plant(history)
    assert faults(history) == []
