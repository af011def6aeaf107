"""The subjects that a redrive may publish to, and those that it never may."""

import pytest

from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.redrive.allowed import AllowedSubjects
from sahool_dlq.redrive.origin import RefusedError

ALLOWED = ("sahool.analysis.>", "sahool.actions.>")


@pytest.mark.parametrize("subject", ["sahool.analysis.ndvi_computed", "sahool.actions.a.b"])
def test_an_allowed_subject_passes(subject: str) -> None:
    AllowedSubjects(ALLOWED, Subjects()).check(subject)


@pytest.mark.parametrize(
    "subject", ["sahool.analysis", "sahool.billing.paid", "other.analysis.x", "sahool.Analysis.x"]
)
def test_a_subject_that_is_not_listed_is_refused(subject: str) -> None:
    with pytest.raises(RefusedError, match="DLQ_REDRIVE_SUBJECTS"):
        AllowedSubjects(ALLOWED, Subjects()).check(subject)


def test_nothing_passes_an_empty_list() -> None:
    with pytest.raises(RefusedError):
        AllowedSubjects((), Subjects()).check("sahool.analysis.x")


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.API.STREAM.DELETE.SAHOOL_DLQ",
        "$SYS.REQ.SERVER.PING",
        "$KV.x.y",
        "_INBOX.abc.1",
        "sahool.dlq.ndvi_computed",
        "sahool.redrive.succeeded",
        "sahool.triage.discarded",
        "sahool.totals.ndvi.ndvi",
    ],
)
@pytest.mark.parametrize("allowed", [(">",), ("sahool.>", "$JS.>", "$SYS.>", "$KV.>", "_INBOX.>")])
def test_some_subjects_are_refused_whatever_is_allowed(
    subject: str, allowed: tuple[str, ...]
) -> None:
    with pytest.raises(RefusedError, match="never published to"):
        AllowedSubjects(allowed, Subjects()).check(subject)


@pytest.mark.parametrize(
    "subject",
    ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nPUB x 0", "a\n", "a\0", "a.*", ">", "a.>"],
)
def test_what_is_no_subject_to_publish_to_is_refused(subject: str) -> None:
    with pytest.raises(RefusedError, match="not a valid subject"):
        AllowedSubjects((">",), Subjects()).check(subject)


def test_a_subject_that_the_server_would_hang_up_on_is_refused() -> None:
    AllowedSubjects((">",), Subjects()).check("a." + "é" * 499)
    with pytest.raises(RefusedError, match="too long"):
        AllowedSubjects((">",), Subjects()).check("a." + "é" * 500)


def test_the_platforms_own_subjects_follow_the_prefix() -> None:
    AllowedSubjects(("sahool.>",), Subjects("farm")).check("sahool.dlq.x")
    with pytest.raises(RefusedError, match="never"):
        AllowedSubjects(("farm.>",), Subjects("farm")).check("farm.dlq.x")
