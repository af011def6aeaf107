"""Dashboards of Grafana as rows of panels, and their JSON.

Each panel names its query: a file of `sql/grafana` or `sql/monitoring`, or an alert rule whose
value it shows. Ids and places are assigned here, so they cannot conflict.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as sdk

from sahool_dlq.alerts.grafana import DATASOURCE, value_sql
from sahool_dlq.alerts.rules import read_alert_rules
from sahool_dlq.sqlfiles import read_sql

_FULL = 24  # columns of Grafana's grid

_INCIDENTS: dict[str, Any] = {
    "name": "Incidents",
    "datasource": DATASOURCE,
    "enable": True,
    "hide": False,
    "iconColor": "red",
    "target": {
        "refId": "Incidents",
        "datasource": DATASOURCE,
        "editorMode": "code",
        "rawQuery": True,
        "rawSql": read_sql("grafana/incidents.sql"),
        "format": "table",
    },
}
"""Drawn as periods in every panel over time."""


@dataclass(frozen=True)
class Panel:
    """One panel: `width` of 24 columns, the query's file, and how it is drawn."""

    title: str
    query: str
    kind: str = "table"
    width: int = _FULL
    height: int = 8
    unit: str = ""
    says: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    custom: dict[str, Any] = field(default_factory=dict)
    limits: tuple[float, float] | None = None  # yellow from, red from
    links: tuple[tuple[str, str], ...] = ()  # of a column: name, URL
    units: dict[str, str] = field(default_factory=dict)  # by column
    colours: dict[str, str] = field(default_factory=dict)  # by series; else as they come


@dataclass(frozen=True)
class Dashboard:
    """One dashboard: rows from top to bottom."""

    uid: str
    title: str
    rows: tuple[tuple[Panel, ...], ...]
    variables: tuple[dict[str, Any], ...] = ()


def stat(title: str, query: str, unit: str = "", **more: Any) -> Panel:
    """One number."""
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
        "justifyMode": "auto",
        "orientation": "auto",
    }
    return Panel(
        title, query, "stat", **{"width": 4, "height": 4, "unit": unit, **more, "options": options}
    )


def lines(title: str, query: str, *, is_stacked: bool = False, **more: Any) -> Panel:
    """Values over time."""
    custom = {
        "drawStyle": "bars" if is_stacked else "line",
        "fillOpacity": 70 if is_stacked else 10,
        "lineWidth": 1,
        "stacking": {"mode": "normal" if is_stacked else "none", "group": "A"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(title, query, "timeseries", **{"options": options, "custom": custom, **more})


def curve(title: str, query: str, **more: Any) -> Panel:
    """Shares over hours."""
    options = {
        "xField": "hours",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
    }
    custom = {"drawStyle": "line", "lineInterpolation": "stepAfter", "lineWidth": 2}
    return Panel(title, query, "trend", **{"options": options, "custom": custom, **more})


def bars(title: str, query: str, *, is_upright: bool = False, **more: Any) -> Panel:
    """One bar per row; vertical if the rows are times, with room for some of their labels."""
    options = {
        "orientation": "vertical" if is_upright else "horizontal",
        "xTickLabelSpacing": 100 if is_upright else 0,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return Panel(title, query, "barchart", **{"options": options, **more})


def variable(name: str, label: str, query: str, *, is_many: bool = False) -> dict[str, Any]:
    """A choice at the top of a dashboard, from a query."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": query,
        "refresh": 1,
        "sort": 1,
        "multi": is_many,
        "includeAll": is_many,
        **({"current": {"text": ["All"], "value": ["$__all"]}} if is_many else {}),
    }


def complete(value: dict[str, Any]) -> dict[str, Any]:
    """The dashboard as Grafana's own library writes it, with the defaults that it adds.

    The library silently drops keys that it does not know. A test checks that it knows all keys used
    here, except in annotations: of these it knows only the queries of Grafana's own data source.
    """
    register_default_plugins()
    read = sdk.Dashboard.from_json(value)
    done: dict[str, Any] = json.loads(JSONEncoder(sort_keys=False).encode(read))
    return done | {"annotations": value["annotations"]}


def dashboard(board: Dashboard) -> dict[str, Any]:
    """A dashboard in Grafana's JSON."""
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["dlq"],
        "timezone": "utc",
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "schemaVersion": 39,
        "panels": _placed(board.rows),
        "templating": {"list": list(board.variables)},
        "annotations": {"list": [_INCIDENTS]},
        "links": [
            {
                "title": "Dead letters",
                "type": "dashboards",
                "icon": "external link",
                "tooltip": "",
                "tags": ["dlq"],
                "asDropdown": True,
                "targetBlank": False,
                "includeVars": False,
                "keepTime": True,
            }
        ],
    }


def _placed(rows: Sequence[Sequence[Panel]]) -> list[dict[str, Any]]:
    panels, y = [], 0
    for row in rows:
        x = 0
        for panel in row:
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            panels.append(_panel(panel, len(panels) + 1, place))
            x += panel.width
        if x != _FULL:
            raise ValueError(f"The row with {row[0].title!r} is {x} columns wide.")
        y += max(panel.height for panel in row)
    return panels


def query_of(panel: Panel) -> str:
    """The statement of a panel, with Grafana's macros in it."""
    if panel.query.startswith("rule/"):
        return value_sql(read_alert_rules(), panel.query.removeprefix("rule/"))
    path = panel.query if "/" in panel.query else f"grafana/{panel.query}"
    return read_sql(f"{path}.sql")


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    is_series = panel.kind in ("timeseries", "status-history")
    steps: list[dict[str, Any]] = [{"value": None, "color": "green"}]
    if panel.limits:
        colours = zip(panel.limits, ("yellow", "red"), strict=True)
        steps += [{"value": value, "color": colour} for value, colour in colours]
    defaults: dict[str, Any] = {"thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "status-history":
        defaults["color"] = {"mode": "thresholds"}
    if panel.unit:
        defaults["unit"] = panel.unit
    if panel.custom:
        defaults["custom"] = panel.custom
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        **({"description": panel.says} if panel.says else {}),
        "datasource": DATASOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": "A",
                "datasource": DATASOURCE,
                "editorMode": "code",
                "rawQuery": True,
                "rawSql": query_of(panel),
                "format": "time_series" if is_series else "table",
            }
        ],
        "options": panel.options or {"showHeader": True, "cellHeight": "sm"},
        "fieldConfig": {
            "defaults": defaults,
            "overrides": [
                *(
                    _override(column, "links", [{"title": "More", "url": url}])
                    for column, url in panel.links
                ),
                *(_override(column, "unit", unit) for column, unit in panel.units.items()),
                *(
                    _override(name, "color", {"mode": "fixed", "fixedColor": colour})
                    for name, colour in panel.colours.items()
                ),
            ],
        },
    }


def _override(column: str, name: str, value: Any) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": name, "value": value}],
    }
