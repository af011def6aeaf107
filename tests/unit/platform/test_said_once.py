"""Facts that are defined in one place, from which all others take them."""

import re
from collections import Counter

import pytest

from support import ROOT

MADE = "sql/postgres/migrations/0025_failures.sql"
_STATUS = r"['\"](?:pending|retried|parked)['\"]"

# fact: how it looks where it is said, and where it is said
FACTS = {
    "the service that failed": (r"coalesce\([\w. ]*consumer_service", {MADE}),
    "what is open": (
        rf"{_STATUS}, {_STATUS}, {_STATUS}",
        {
            MADE,
            "sql/postgres/migrations/0002_platform.sql",  # the index that finds it
            "pipelines/sahool_dlq/deadletter/cases.py",  # the fold, in Python
        },
    ),
    "which rows are live": (
        r"(?:<>|!=) ['\"]superseded['\"]",
        {
            MADE,
            # what asks failed_events itself, since it wants columns that the view has not
            "pipelines/sahool_dlq/events/models.py",
            "pipelines/sahool_dlq/reproduce/export.py",
            "pipelines/sahool_dlq/reproduce/opened.py",
        },
    ),
    "the class of an error, in SQL": (r"regexp_replace\([\w. ]*error_type", {MADE}),
    "failures a minute": (
        r"/ (?:\w+\.)?(?:window_)?minutes|minutes AS divisor|COUNT\(\*\)(?:::\w+)? / [\d.]+",
        {
            "sql/marts/metrics.sql",  # over windows of the past, in the lake
            "sql/alerts/failures/dlq_rate.sql",  # now, in PostgreSQL
        },
    ),
    "which redrives were answered": (
        r"\(['\"]succeeded['\"], ['\"]failed_again['\"]\)",
        {
            MADE,
            "sql/postgres/migrations/0008_redrive_history.sql",  # the index that finds them
            "sql/postgres/migrations/0027_replays.sql",  # the view again, without replays
            "sql/views/redrives.sql",
        },
    ),
}


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_is_said_where_it_is_made_and_nowhere_else(fact: str) -> None:
    pattern, places = FACTS[fact]
    files = [*(ROOT / "sql").rglob("*.sql"), *(ROOT / "pipelines").rglob("*.py")]
    found = {
        str(file.relative_to(ROOT))
        for file in files
        if re.search(pattern, " ".join(file.read_text().split()), re.IGNORECASE)
    }
    assert found == places


def test_each_test_file_has_a_name_of_its_own() -> None:
    """pytest imports them by name alone, and collects the second one not at all."""
    names = Counter(
        file.name
        for file in (ROOT / "tests").rglob("test_*.py")
        if "node_modules" not in file.parts
    )
    assert [name for name, count in names.items() if count > 1] == []
