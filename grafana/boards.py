"""The panels of the dashboards."""

from panels import Dashboard, Panel, bars, curve, lines, stat, variable

_GROUP = ("group_id", "/d/dlq-groups")
_SERVICE = ("service", "/d/dlq-service?var-service=${__value.raw}")

DASHBOARDS = (
    Dashboard(
        "dlq-overview",
        "Dead letters: overview",
        (
            (
                stat(
                    "Failures a minute",
                    "rule/dlq_rate",
                    says="The value of the alert rule dlq_rate: the mean over five minutes.",
                    limits=(5, 10),
                ),
                stat("Open", "open_now", limits=(1, 1_000)),
                stat("Oldest open", "oldest_open", "s", limits=(43_200, 86_400)),
                stat("Redrive success", "redrive_success", "percentunit"),
                stat("Alerts", "alerts_firing", limits=(1, 1)),
                stat("Not drained", "lag_now", limits=(1_000, 10_000)),
            ),
            (lines("Failures by error type", "failures_by_type_over_time", is_stacked=True),),
            (
                Panel("Firing alerts", "alerts_now", width=14, height=9),
                bars("Error types", "error_distribution", width=10, height=9),
            ),
            (
                Panel(
                    "Service health",
                    "service_health",
                    width=12,
                    height=10,
                    links=(_SERVICE,),
                    units={"oldest_open_age_seconds": "s", "failure_rate_24h": "percentunit"},
                ),
                Panel(
                    "Services over time",
                    "failures_by_service_over_time",
                    "status-history",
                    width=12,
                    height=10,
                    options={
                        "showValue": "never",
                        "rowHeight": 0.9,
                        "legend": {
                            "displayMode": "list",
                            "placement": "bottom",
                            "showLegend": False,
                            "calcs": [],
                        },
                        "tooltip": {"mode": "single", "sort": "none"},
                    },
                    limits=(1, 50),
                ),
            ),
        ),
    ),
    Dashboard(
        "dlq-groups",
        "Dead letters: groups",
        (
            (
                Panel(
                    "Failure groups",
                    "groups",
                    height=12,
                    says="Details: `dlq show GROUP`.",
                    units={"redrive_chance": "percentunit"},
                ),
            ),
            (
                lines("The largest groups", "groups_over_time", is_stacked=True, width=14),
                Panel(
                    "Over-represented values",
                    "contributors",
                    width=10,
                    units={"share": "percentunit", "baseline_share": "percentunit"},
                ),
            ),
            (
                bars(
                    "Hour of the week",
                    "hour_of_week",
                    is_upright=True,
                    says="UTC; needs four weeks of data.",
                ),
            ),
        ),
        (
            variable(
                "state",
                "State",
                "SELECT DISTINCT state FROM dlq.mart_failure_groups ORDER BY state",
                is_many=True,
            ),
        ),
    ),
    Dashboard(
        "dlq-service",
        "Dead letters: service",
        (
            (
                stat("Health", "service_score", width=4),
                stat("Open", "service_open", width=4, limits=(1, 1_000)),
                stat(
                    "Failure rate, 24 h",
                    "service_failure_rate",
                    "percentunit",
                    width=8,
                    says="With Wilson's 95 % interval; unknown without totals.",
                ),
                stat(
                    "Burn rate",
                    "service_burn",
                    width=8,
                    says="1: exactly what the objective allows.",
                    limits=(1, 6),
                ),
            ),
            (
                lines(
                    "Failures by error type", "service_by_type_over_time", is_stacked=True, width=12
                ),
                lines(
                    "Messages by hour",
                    "service_traffic",
                    is_stacked=True,
                    width=12,
                    colours={"succeeded": "green", "retried": "yellow", "dead_lettered": "red"},
                ),
            ),
            (Panel("Newest failures", "service_recent", height=12),),
        ),
        (
            variable(
                "service", "Service", "SELECT service FROM dlq.mart_service_health ORDER BY service"
            ),
        ),
    ),
    Dashboard(
        "dlq-redrive",
        "Dead letters: redrive",
        (
            (
                lines(
                    "Redrives by outcome",
                    "redrives_over_time",
                    is_stacked=True,
                    width=16,
                    colours={"succeeded": "green", "failed_again": "red"},
                ),
                bars("Outcomes", "redrives_by_outcome", width=8),
            ),
            (
                curve(
                    "How failures end",
                    "resolution_curve",
                    unit="percentunit",
                    says="By hours since the failure, three days.",
                    width=12,
                    height=10,
                ),
                Panel(
                    "Time until failures end",
                    "resolution_times",
                    width=12,
                    height=10,
                    units={
                        "open_share": "percentunit",
                        "median_seconds": "s",
                        "p90_seconds": "s",
                        "rmst_24h_seconds": "s",
                    },
                ),
            ),
            (
                Panel(
                    "By group",
                    "redrive_outcomes",
                    width=12,
                    height=10,
                    links=(_GROUP,),
                    units={"success_rate": "percentunit"},
                ),
                Panel("Parked, and why", "monitoring/parked_and_why", width=12, height=10),
            ),
            (Panel("Batches", "redrive_batches"),),
        ),
    ),
    Dashboard(
        "dlq-pipeline",
        "Dead letters: pipeline",
        (
            (
                stat("Not drained", "lag_now", width=6, limits=(1_000, 10_000)),
                Panel("The drain", "checkpoints", width=18, height=4),
            ),
            (
                lines("Messages in the log", "log_over_time", width=12),
                lines("Size of the streams", "stream_sizes", width=12, unit="bytes"),
            ),
            (
                lines("Unreadable messages", "quarantined_over_time", is_stacked=True, width=8),
                Panel("Gaps", "gaps", width=16),
            ),
            (
                Panel("Messages about alerts", "alert_messages", width=12),
                Panel(
                    "Waiting for a redrive",
                    "monitoring/pending_retries",
                    width=12,
                    units={"oldest_age_seconds": "s"},
                ),
            ),
        ),
    ),
)
