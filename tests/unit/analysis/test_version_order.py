"""The order of versions: by PEP 440, by SemVer, or as they appeared."""

import random

import pytest

from sahool_dlq.analysis.versions import in_order


@pytest.mark.parametrize(
    "ordered",
    [
        ["2.3", "2.4rc1", "2.4", "2.4.1", "2.10"],  # PEP 440
        ["v1.9.0", "v1.10.0", "v2.0.0"],
        ["2026.9.1", "2026.10.0"],
        ["1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0"],  # SemVer alone
        ["v1.2.0", "v2.0.0-feature.7", "v2.0.0"],
    ],
)
def test_versions_are_ordered_by_what_they_say(ordered: list[str]) -> None:
    for seed in range(5):
        shuffled = random.Random(seed).sample(ordered, len(ordered))
        assert in_order(shuffled) == ordered


@pytest.mark.parametrize(
    "appeared", [["main-9", "main-10", "3f78685"], ["2.5", "3f78685", "2.4"], [""], []]
)
def test_others_stay_as_they_appeared(appeared: list[str]) -> None:
    assert in_order(appeared) == appeared


def test_equal_ones_stay_as_they_appeared() -> None:
    assert in_order(["2.4.0", "2.4", "2.3"]) == ["2.3", "2.4.0", "2.4"]
