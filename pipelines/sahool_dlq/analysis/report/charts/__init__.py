"""The charts, each a pure function of a mart's rows: for notebooks and the report.

Each takes the frame of the mart with its name, and a `Look`. docs/report.md explains the charts.
"""

from sahool_dlq.analysis.report.charts.cases import (
    health_parts,
    incidence,
    redrive_outcomes,
    survival,
)
from sahool_dlq.analysis.report.charts.differences import difference_shares, difference_times
from sahool_dlq.analysis.report.charts.failures import (
    contributors,
    failures_by_type,
    group_trends,
    hour_of_week,
    open_failures,
    service_heat_map,
    timeline,
)
from sahool_dlq.analysis.report.charts.incidents import all_incidents, incident

__all__ = [
    "all_incidents",
    "contributors",
    "difference_shares",
    "difference_times",
    "failures_by_type",
    "group_trends",
    "health_parts",
    "hour_of_week",
    "incidence",
    "incident",
    "open_failures",
    "redrive_outcomes",
    "service_heat_map",
    "survival",
    "timeline",
]
