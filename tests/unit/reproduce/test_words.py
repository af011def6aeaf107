"""The report of a trial as text, by groups, and as annotations."""

from pathlib import Path

import pytest

from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.reproduce.verdict import (
    GroupTrial,
    Kind,
    Successes,
    TrialReport,
    Tried,
    fail_alike,
)
from sahool_dlq.reproduce.words import annotations, group_line, notes, summary
from sahool_dlq.reproduce.worker import Called

A, B, C = "a" * 16, "b" * 16, "c" * 16
GOOD = Called("success", 0.1)


def failing(file: str, line: int, error: str = "KeyError: 'price'") -> Called:
    kind, _, said = error.partition(": ")
    frame = f'  File "{file}", line {line}, in price\n    pay()\n'
    trace = f"Traceback (most recent call last):\n{frame}{error}\n"
    return Called("raised", 0.1, kind, said, trace)


def kind(count: int, group: str = B, result: str = "raised", **changes: object) -> Kind:
    values = {
        "error_type": "KeyError",
        "error_message": "'price'",
        "file": "price.py",
        "line": 41,
        "stack_trace": None,
        "failure_ids": (),
    }
    return Kind(count, result, group_id=group, **{**values, **changes})


def group(passed: int, *kinds: Kind, id_: str = A) -> GroupTrial:
    tried = passed + sum(each.count for each in kinds)
    return GroupTrial(id_, "KeyError", "pricing", 312, tried, passed, kinds)


@pytest.mark.parametrize(
    ("tried", "known", "words"),
    [
        (
            group(47, kind(3)),
            {},
            (
                "47 of 50 pass; 3 raise KeyError at price.py:41, which is another group"
                f" ({B}, not seen before)"
            ),
        ),
        (
            group(1, kind(1)),
            {B: 1_200},
            (
                "1 of 2 passes; 1 raises KeyError at price.py:41, which is another group"
                f" ({B}, 1,200 open)"
            ),
        ),
        (
            group(0, kind(2, A)),
            {A: 312},
            "0 of 2 pass; 2 raise KeyError at price.py:41, as before",
        ),
        (group(50), {}, "all of 50 pass"),
        (group(1), {}, "1 of 1 passes"),
        (
            group(0, kind(2, result="retry", error_type="HandlerResult", file=None, line=None)),
            {B: 0},
            f"0 of 2 pass; 2 return RETRY, which is another group ({B}, 0 open)",
        ),
        (
            group(0, kind(1, A, "dead_letter")),
            {},
            "0 of 1 pass; 1 returns DEAD_LETTER for KeyError at price.py:41, as before",
        ),
        (
            group(0, kind(1, result="died", error_type="ProcessDied", file=None, line=None)),
            {B: 1},
            f"0 of 1 pass; 1 ends the process, which is another group ({B}, 1 open)",
        ),
        (group(0), {}, "no event could be tried"),
    ],
)
def test_how_a_group_fares_is_one_line(
    tried: GroupTrial, known: dict[str, int], words: str
) -> None:
    assert group_line(tried, known) == words


@pytest.mark.parametrize(
    ("groups", "successes", "words"),
    [
        (
            [group(400), group(12, id_=B), group(0, kind(3), id_=C)],
            Successes(1_000, 1_000),
            (
                f"This code cures groups {A} and {B} (412 of 415 events), breaks none of"
                " 1,000 sampled successes."
            ),
        ),
        (
            [group(1, kind(1), id_=C)],
            Successes(10, 8, (kind(2),)),
            (
                f"This code cures no group and some of {C} (1 of 2 events), breaks 2 of 10 sampled"
                " successes."
            ),
        ),
        ([], Successes(0, 0, (), "there is no consumer a/b any more"), (
            "This code finds no open failure to cure; no success could be tried: there is no"
            " consumer a/b any more."
        )),
        ([group(2)], None, f"This code cures group {A} (2 of 2 events)."),
    ],
)  # fmt: skip
def test_the_whole_is_one_sentence(
    groups: list[GroupTrial], successes: Successes | None, words: str
) -> None:
    assert summary(TrialReport("price:handle", tuple(groups), successes)) == words


def test_annotations_stand_at_the_line_and_cannot_be_broken_out_of() -> None:
    evil = kind(2, error_message="100%\n::error::x", file="a,b:c.py", line=7)
    report = TrialReport("p:h", (group(0, kind(1, A)),), Successes(10, 8, (evil,)), {A: 5})
    lines = list(annotations(report))
    assert all(line.count("\n") == 0 for line in lines)
    assert lines[0].startswith("::error file=a%2Cb%3Ac.py,line=7,title=a success breaks::2 raise ")
    assert "100%25" in lines[0]
    assert lines[0].split("::", 2)[2].endswith("100%25%0A::error::x")
    assert lines[1].startswith(f"::warning file=price.py,line=41,title=group {A} still fails::")
    assert lines[2].startswith("::error title=dlq try::This code cures no group")
    fine = TrialReport("p:h", (group(3),), Successes(10, 10))
    assert list(annotations(fine)) == [f"::notice title=dlq try::{summary(fine)}"]


def test_what_fails_alike_is_one_kind_masked_and_named_by_its_place(tmp_path: Path) -> None:
    code = str(tmp_path / "shop" / "price.py")
    secret = "ValueError: password=hunter2 is refused"
    calls = [GOOD, failing(code, 41), failing(code, 41), failing(code, 50, secret)]
    tried = [Tried(f"f{n}", called) for n, called in enumerate(calls)]
    kinds = fail_alike(tried, Redactor(), GroupingRules(), tmp_path)
    assert [(each.count, each.at, each.failure_ids) for each in kinds] == [
        (2, "shop/price.py:41", ("f1", "f2")),
        (1, "shop/price.py:50", ("f3",)),
    ]
    assert kinds[0].group_id != kinds[1].group_id
    assert "hunter2" not in str(kinds)
    assert fail_alike(tried[:1], Redactor(), GroupingRules(), tmp_path) == ()


def test_the_frame_is_ours_and_not_that_of_a_library_nearer_to_the_raise(tmp_path: Path) -> None:
    trace = (
        'Traceback (most recent call last):\n  File "/x/price.py", line 3, in price\n    a\n'
        '  File "/y/site-packages/json/decoder.py", line 9, in decode\nValueError: x\n'
    )
    [found] = fail_alike(
        [Tried("f", Called("raised", 0, "ValueError", "x", trace))],
        Redactor(),
        GroupingRules(),
        tmp_path,
    )
    assert found.at == "/x/price.py:3"


def test_no_frame_is_taken_out_of_a_message(tmp_path: Path) -> None:
    evil = 'ValueError: bad\n  File "/etc/passwd", line 7, in evil\n    x'
    [found] = fail_alike(
        [Tried("f", failing("/x/price.py", 3, evil))], Redactor(), GroupingRules(), tmp_path
    )
    assert found.at == "/x/price.py:3"


def test_notes_say_what_is_gone_what_was_not_drained_and_what_has_no_test() -> None:
    gone = GroupTrial(A, "KeyError", "s", 3, 1, 1, (), {"the stream no longer has it": 2})
    report = TrialReport(
        "p:h", (gone,), Successes(5, 5), {}, 7, (), {A: "none of its events fails"}
    )
    said = list(notes(report))
    assert said[0] == f"2 events of {A}: the stream no longer has it."
    assert said[1].startswith("7 messages of the log were not drained yet")
    assert said[2] == f"No test was written for {A}: none of its events fails."
