"""Which subjects a source takes from its origin, and how it renames them."""

import pytest
from nats.js.api import StreamSource, SubjectTransform

from sahool_dlq.jetstream.incoming import through


@pytest.mark.parametrize(
    ("src", "dest", "passed"),
    [
        ("a.>", "b.>", ["b.>"]),
        ("a.>", "", ["a.>"]),  # a filter
        ("b.>", "c.>", []),
        ("a.*.x", "n.{{wildcard(1)}}.x", ["n.*.x"]),
        ("a.*.x", "n.$1.x", ["n.*.x"]),
        ("a.*.x", "n.{{ Partition(3, 1) }}.p-{{wildcard(1)}}", ["n.*.*"]),
        ("a.*.x", "n.{{SplitFromLeft(1,2)}}.x", ["n.>"]),
        ("a.*.x", "{{slicefromright(1,2)}}", [">"]),
        ("a.*.x", "n.$price", ["n.$price"]),
    ],
)
def test_a_transform_says_which_subjects_come(src: str, dest: str, passed: list[str]) -> None:
    source = StreamSource("A", subject_transforms=[SubjectTransform(src, dest)])
    assert through(source, ["a.>"]) == passed


def test_without_one_they_come_as_they_are_or_filtered() -> None:
    assert through(StreamSource("A"), ["a.>", "b.c"]) == ["a.>", "b.c"]
    assert through(StreamSource("A", filter_subject="b.*"), ["a.>", "b.>"]) == ["b.*"]
    assert through(StreamSource("A", filter_subject="b.*"), ["a.>", "b.c"]) == ["b.c"]
    assert through(StreamSource("A", filter_subject="d"), ["a.>", "b.c"]) == []
