"""What `dlq groups` says of groups that one cause has."""

from sahool_dlq.cli.groups import shared_causes


def group(name, cause, open_count):
    return {"group_id": name, "cause_id": cause, "open_count": open_count}


def test_causes_that_several_open_groups_share_come_with_the_most_open_failures_first():
    groups = [
        group("a", "c1", 2),
        group("b", "c1", 1),
        group("c", "c2", 1),
        group("d", "c3", 4),
        group("e", "c3", 5),
        group("f", "c2", 0),  # all of it is closed
        group("g", None, 8),  # drained by an older version
        group("h", None, 8),
    ]
    shared = shared_causes(groups)
    assert [(cause, [row["group_id"] for row in rows]) for cause, rows in shared.items()] == [
        ("c3", ["d", "e"]),
        ("c1", ["a", "b"]),
    ]
