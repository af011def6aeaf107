"""The dashboards as one HTML page, without Grafana: `make grafana-preview`.

Each panel's query runs on the PostgreSQL of DLQ_POSTGRES_DSN as Grafana would send it. Numbers,
bars and curves are drawn with the report's colours, roughly as Grafana draws them.
"""

import re
import sys
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
from boards import DASHBOARDS
from jinja2 import Environment
from markupsafe import Markup
from panels import Dashboard, Panel, query_of
from psycopg import Connection

from sahool_dlq.alerts.text import quantity
from sahool_dlq.analysis.report.axes import row_axis, time_axis
from sahool_dlq.analysis.report.section import cell_text, seconds_as_text
from sahool_dlq.analysis.report.theme import LIGHT, Look, as_svgs, styled
from sahool_dlq.errors import DLQError
from sahool_dlq.settings import load_settings
from sahool_dlq.stores.postgres.database import database

_ROWS = 12  # of a table, that fit its panel
_PAGE = """<!doctype html><meta charset="utf-8"><title>Dashboards, a preview</title><style>
:root { {% for name, colour in colours.items() %}--{{ name }}:{{ colour }};{% endfor %} }
body { font: 13px/1.4 Helvetica, Arial, sans-serif; color: var(--ink); background: #f4f5f7;
  width: 1400px; margin: 16px auto; }
.board { display: grid; grid-template-columns: repeat(24, 1fr); gap: 8px; }
.board div { background: var(--paper); padding: 8px 10px; overflow: hidden; min-width: 0; }
h3 { font-size: 13px; margin: 0 0 6px; }
h3 small, .none { color: var(--muted); font-weight: normal; }
table { border-collapse: collapse; width: 100%; font-size: 11.5px; } th { font-weight: 500; }
th, td { text-align: left; padding: 3px 8px 3px 0; border-bottom: 1px solid var(--grid);
  overflow-wrap: break-word; }
b { font-size: 26px; margin-right: 18px; } b small { font-size: 12px; color: var(--muted); }
</style>{% for board, panels in boards %}<h2>{{ board.title }}</h2><section class="board">
{% for panel, body in panels %}<div style="grid-column: span {{ panel.width }}">
<h3>{{ panel.title }} <small>{{ panel.says }}</small></h3>{{ body }}</div>{% endfor %}
</section>{% endfor %}"""
_TABLE = """<table><tr>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</table>"""
_STAT = "{% for name, text in cells %}<b>{{ text }} <small>{{ name }}</small></b>{% endfor %}"
_JINJA = Environment(autoescape=True)


def expanded(
    sql: str, variables: dict[str, list[str]], hours: int = 24, step_seconds: int = 900
) -> str:
    """The statement as Grafana's PostgreSQL data source sends it, for the last so many hours."""
    # Its macros end at the first parenthesis, so they take plain columns only.
    sql = re.sub(
        r"\$__timeFilter\(([^()]*)\)",
        rf"\1 BETWEEN now() - interval '{hours} hours' AND now()",
        sql,
    )
    sql = re.sub(
        r"\$__timeGroup\(([^,()]*), \$__interval\)",
        rf"to_timestamp(floor(extract(epoch from \1)/{step_seconds})*{step_seconds})",
        sql,
    )
    sql = sql.replace("$__timeFrom()", f"now() - interval '{hours} hours'")
    sql = sql.replace("$__timeTo()", "now()")
    for name, values in variables.items():
        quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        sql = sql.replace(f"${{{name}:sqlstring}}", quoted).replace(f"'${name}'", quoted)
    return sql


def choices(
    connection: Connection[Any], variables: tuple[dict[str, Any], ...]
) -> dict[str, list[str]]:
    """The values that Grafana selects for each variable of a dashboard: all, or the first; '' if
    none.
    """
    found = {}
    for variable in variables:
        rows = connection.execute(variable["query"]).fetchall()
        values = [str(row[0]) for row in rows] or [""]
        found[variable["name"]] = values if variable["multi"] else values[:1]
    return found


def drawn(panel: Panel, names: list[str], rows: list[tuple[Any, ...]]) -> Markup:
    """The result of a panel, nearly as Grafana shows it."""
    if not rows:
        return Markup('<span class="none">No data</span>')
    if panel.kind in ("table", "stat"):
        units = panel.units | (dict.fromkeys(names, panel.unit) if panel.unit else {})
        texts = [
            [_text(v, units.get(name, "")) for name, v in zip(names, row, strict=True)]
            for row in rows[:_ROWS]
        ]
        if panel.kind == "table":
            return Markup(_JINJA.from_string(_TABLE).render(names=names, rows=texts))  # noqa: S704  (the template escapes)
        titles = names if len(names) > 1 else [""]
        cells = zip(titles, texts[0], strict=True)
        return Markup(_JINJA.from_string(_STAT).render(cells=cells))  # noqa: S704  (the template escapes)
    frame = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
    [svg] = as_svgs([_chart(panel, frame)])
    return Markup(svg or "It could not be drawn.")  # noqa: S704  (Vega escapes what it draws)


def _text(value: Any, unit: str) -> str:
    if value is not None and unit == "s":
        return seconds_as_text(float(value))
    if value is not None and unit == "percentunit":
        return f"{100 * float(value):.3g} %"
    return quantity(value, "").strip() if isinstance(value, float) else cell_text(value)


def _chart(panel: Panel, frame: pl.DataFrame) -> Any:
    look = Look(width=int(1400 * panel.width / 24) - 30)
    first, *rest = frame.columns
    if panel.kind == "barchart":
        mark = alt.Chart(frame, height=180).mark_bar(color=look["blue"])
        if panel.options["orientation"] == "horizontal":
            rows = row_axis(first, frame[first].to_list())
            return styled(mark.encode(y=rows, x=alt.X(f"{rest[0]}:Q", title=None)), look, rest[0])
        names = alt.X(f"{first}:N", sort=None, title=None, axis=alt.Axis(values=frame[first][::12]))
        return styled(mark.encode(x=names, y=f"{rest[0]}:Q"), look, rest[0])
    if rest[0] == "metric":
        frame = frame.rename({rest[1]: "value"})
    else:
        frame = frame.unpivot(rest, index=first, variable_name="metric")
    ends = frame[first].min(), frame[first].max()
    is_time = isinstance(ends[0], datetime)
    if is_time and panel.kind == "status-history":
        frame = frame.with_columns(to=pl.col(first) + timedelta(minutes=15))
        mark = alt.Chart(frame, height=220).mark_rect()
        return styled(
            mark.encode(
                x=time_axis(first, None, None, look),
                x2="to:T",
                y=alt.Y("metric:N", title=None),
                color=alt.Color("value:Q", scale=alt.Scale(range=look.ramp), legend=None),
            ),
            look,
            "",
        )
    x = time_axis(first, None, None, look) if is_time else alt.X(f"{first}:Q")
    is_bars = panel.custom.get("drawStyle") == "bars"
    chart = alt.Chart(frame, height=190)
    mark = chart.mark_bar(size=6) if is_bars else chart.mark_line(interpolate="step-after")
    names = sorted(frame["metric"].unique())
    colours = (look["orange"] if c == "yellow" else look[c] for c in panel.colours.values())
    fixed = dict(zip(panel.colours, colours, strict=True))
    rest_of = cycle([*look.series, look["grey"]])
    scale = alt.Scale(domain=names, range=[fixed.get(name) or next(rest_of) for name in names])
    colour = alt.Color("metric:N", scale=scale)
    return styled(mark.encode(x=x, y="value:Q", color=colour), look, "")


def page(connection: Connection[Any], boards: tuple[Dashboard, ...] = DASHBOARDS) -> str:
    """Every dashboard, one below the other."""
    shown = []
    for board in boards:
        chosen = choices(connection, board.variables)
        panels = []
        for panel in (panel for row in board.rows for panel in row):
            cursor = connection.execute(expanded(query_of(panel), chosen))
            names = [column.name for column in cursor.description or ()]
            panels.append((panel, drawn(panel, names, cursor.fetchall())))
        shown.append((board, panels))
    return _JINJA.from_string(_PAGE).render(boards=shown, colours=LIGHT)


if __name__ == "__main__":
    settings = load_settings()
    file = Path(settings.home) / "grafana-preview.html"
    try:
        with database(settings.postgres_dsn.get_secret_value()) as opened:
            made = opened.execute("SELECT to_regclass('dlq.mart_service_health')").fetchone()
            if made == (None,):
                sys.exit("grafana-preview: there are no marts yet: run `dlq marts` first.")
            text = page(opened)
    except DLQError as error:
        sys.exit(f"grafana-preview: {error}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    sys.stdout.write(f"{file}\n")
