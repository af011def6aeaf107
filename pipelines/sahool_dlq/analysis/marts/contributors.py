"""Values that a failure group, or the last day, has more often than the rest: a tenant, a field, a
version.

A finding is an attribute, or a pair of them, whose share among the failures of the subject is at
least twice its share among the others, significant after Benjamini-Hochberg. It says where to look
first, not what the cause is.
"""

import json
from collections.abc import Callable
from typing import Any

import polars as pl

from sahool_dlq.analysis.marts.significance import adjusted, fisher_tail

__all__ = ["GROUP_SAMPLE_SQL", "WINDOW_SAMPLE_SQL", "attributes", "contributors", "explain"]

LEAST_SUPPORT = 0.05
"""Minimum share of the subject's failures with a finding ..."""
LEAST_COUNT = 5
"""... and their number."""
LEAST_RATIO = 2.0
MOST_P = 0.01
EXPLAINED = 0.8
"""A pair adds nothing if one of its parts alone has this much of its risk ratio."""
LEAST_GROUP = 20
"""Smaller groups are not explained."""
MOST_GROUPS = 50
MOST_FINDINGS = 10

COLUMNS = ("tenant_id", "service", "event_type", "consumer_version", "field_id")
"""Attributes that every failure has; in addition the keys of its event, as `data.<key>`."""

SAMPLE = 50_000
"""Maximum number of failures in the sample."""

GROUP_SAMPLE_SQL = f"""
WITH latest AS (
    SELECT d.failure_id, d.published_at, d.dlq_sequence, d.group_id, d.original_data,
        d.{", d.".join(COLUMNS)}
    FROM dead_letters AS d
    CROSS JOIN clock AS n
    WHERE d.dlq_date > CAST(n.now AT TIME ZONE 'UTC' AS DATE) - 7 AND d.root_failure_id IS NULL
    ORDER BY d.published_at DESC, d.dlq_sequence DESC
    LIMIT {SAMPLE}
)

SELECT failure_id, group_id, original_data, {", ".join(COLUMNS)}
FROM latest
ORDER BY published_at, dlq_sequence
"""  # noqa: S608  (our own names, bound values)
"""The latest failures of a week, without those of redrives: one group against all others."""

WINDOW_SAMPLE_SQL = f"""
SELECT
    d.failure_id,
    d.dlq_timestamp > n.now - INTERVAL '24' HOUR AS is_in_question,
    d.{", d.".join(COLUMNS)}
FROM dead_letters AS d
CROSS JOIN clock AS n
WHERE d.dlq_timestamp > n.now - INTERVAL '192' HOUR AND d.dlq_timestamp <= n.now
AND d.dlq_date > CAST(n.now AT TIME ZONE 'UTC' AS DATE) - 9 AND d.root_failure_id IS NULL
ORDER BY d.failure_id, d.dlq_sequence -- a hash: as good as a random sample, the same each time
LIMIT {SAMPLE}
"""  # noqa: S608  (our own names, bound values)
"""The last 24 hours against the seven days before."""

_SCHEMA = {
    "subject": pl.String,
    "attribute": pl.String,
    "value": pl.String,
    "other_attribute": pl.String,
    "other_value": pl.String,
    "failure_count": pl.Int64,
    "share": pl.Float64,
    "baseline_share": pl.Float64,
    "risk_ratio": pl.Float64,
    "adjusted_p": pl.Float64,
}
_KEYS = ["attribute", "value", "other_attribute", "other_value"]


def contributors(query: Callable[[str], pl.DataFrame]) -> pl.DataFrame:
    """The mart `contributors`: one row per finding, at most MOST_FINDINGS of each subject.

    * subject: a group_id of the last seven days, against all other groups of the week (of the
      latest SAMPLE failures); or `last 24 hours`, against the seven days before
    * attribute, value: of `COLUMNS`, or `data.<key>`; other_attribute, other_value for a pair
    * failure_count: sampled failures of the subject that have it; share: of all failures of the
      subject
    * baseline_share: of the others; risk_ratio: share / baseline_share, with half a failure added
      to each count; adjusted_p: Fisher's exact test after Benjamini and Hochberg
    """
    window = _sampled(query(WINDOW_SAMPLE_SQL))
    is_last_day = pl.when("is_in_question").then(pl.lit("last 24 hours"))
    sample = _sampled(query(GROUP_SAMPLE_SQL))
    sizes = sample["group_id"].value_counts(sort=True).filter(pl.col("count") >= LEAST_GROUP)
    groups = sorted(sizes["group_id"].head(MOST_GROUPS))
    is_explained = pl.when(pl.col("group_id").is_in(groups)).then("group_id")
    found = [
        *_explained(window.select(is_last_day).to_series(), attributes(window)).items(),
        *_explained(sample.select(is_explained).to_series(), attributes(sample)).items(),
    ]
    telling = [
        frame.head(MOST_FINDINGS).select(pl.lit(subject).alias("subject"), pl.all())
        for subject, frame in found
    ]
    return pl.concat([pl.DataFrame(schema=_SCHEMA), *(f.cast(_SCHEMA) for f in telling)])  # type: ignore[arg-type]  # polars names too narrow a type


def _sampled(failures: pl.DataFrame) -> pl.DataFrame:
    """Each failure once, even if its dead letter was published twice; numbered by `id`."""
    once = failures.unique("failure_id", keep="first", maintain_order=True)
    return once.drop("failure_id").with_row_index("id")


def attributes(sample: pl.DataFrame) -> pl.DataFrame:
    """The sample's attributes in long form: id, attribute, value; none is null."""
    columns = sample.unpivot(
        COLUMNS, index="id", variable_name="attribute", value_name="value"
    ).drop_nulls("value")
    if "original_data" not in sample.columns:
        return columns
    rows = [
        (row, f"data.{key}", value)
        for row, data in zip(sample["id"], sample["original_data"], strict=True)
        for key, value in _scalars(data)
    ]
    of_data = pl.DataFrame(rows, schema=columns.schema, orient="row")
    return pl.concat([columns, of_data])


def _scalars(data: str) -> list[tuple[str, str]]:
    """The keys of an event whose values are short texts, whole numbers or truth values."""
    try:
        event: Any = json.loads(data)
    except ValueError:
        return []
    if not isinstance(event, dict):
        return []
    return [
        (key, str(value))
        for key, value in list(event.items())[:50]
        if key not in COLUMNS  # the same again
        and isinstance(value, str | int)
        and len(str(value)) <= 64
        and len(key) <= 64
    ]


def explain(is_in_question: pl.Series, known: pl.DataFrame) -> pl.DataFrame:
    """Attributes and pairs that the failures of the subject have more often, the most significant
    first.

    `is_in_question` says it for every failure, by position; `known` are their `attributes`.
    """
    found = _explained(is_in_question.replace_strict({True: "it"}, default=None), known)
    return found.get("it", pl.DataFrame(schema={name: _SCHEMA[name] for name in list(_SCHEMA)[1:]}))


def _explained(subjects: pl.Series, known: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Values that each subject has more often than all other failures, by subject, in alphabetical
    order.

    `subjects` has the subject of every failure, by position, or null.
    """
    size = len(subjects)
    return {
        subject: _judged(counted, size)
        for (subject,), counted in sorted(
            _counted(subjects, known).partition_by("subject", as_dict=True).items()
        )
        if counted["in_question"][0] < size
    }


def _judged(tested: pl.DataFrame, size: int) -> pl.DataFrame:
    """One subject's significant attributes and pairs, the most significant first."""
    in_question = tested["in_question"][0]
    others = size - in_question
    hits = tested["failure_count"]
    p_values = fisher_tail(hits, in_question, hits + tested["elsewhere"], size)
    ratio = ((pl.col("failure_count") + 0.5) / (in_question + 1)) / (
        (pl.col("elsewhere") + 0.5) / (others + 1)
    )
    judged = tested.with_columns(
        share=pl.col("failure_count") / in_question,
        baseline_share=pl.col("elsewhere") / others,
        risk_ratio=ratio,
        adjusted_p=adjusted(p_values),
    )
    telling = judged.filter(
        pl.col("risk_ratio") >= LEAST_RATIO, pl.col("adjusted_p") < MOST_P
    ).join(_explained_pairs(judged), on=_KEYS, how="anti", nulls_equal=True)
    return telling.sort(
        ["share", "risk_ratio", *_KEYS], descending=[True, True, *[False] * 4]
    ).select(list(_SCHEMA)[1:])


def _counted(subjects: pl.Series, known: pl.DataFrame) -> pl.DataFrame:
    """By subject: attributes and pairs with enough of its failures; their counts there and
    elsewhere.

    All subjects at once, and by numbers instead of texts: there are many pairs.
    """
    rows = pl.DataFrame({"subject": subjects.cast(pl.String)}).with_row_index("id")
    sizes = rows.drop_nulls().group_by("subject").agg(in_question=pl.len().cast(pl.Int64))
    things = known.select(_KEYS[:2]).unique().sort(_KEYS[:2]).with_row_index("thing")
    held = known.join(things, on=_KEYS[:2]).select("id", "thing").join(rows, on="id")

    def enough(hits: pl.DataFrame, *thing: str) -> pl.DataFrame:
        return (
            hits.drop_nulls("subject")
            .group_by("subject", *thing)
            .agg(failure_count=pl.len().cast(pl.Int64))
            .join(sizes, on="subject")
            .filter(
                pl.col("failure_count") >= LEAST_COUNT,
                pl.col("failure_count") >= LEAST_SUPPORT * pl.col("in_question"),
            )
        )

    def both(holding: pl.DataFrame) -> pl.DataFrame:
        return holding.join(holding.select("id", "thing"), on="id", suffix="_b").filter(
            pl.col("thing") < pl.col("thing_b")
        )

    singles = enough(held, "thing")
    pairs = enough(
        both(held.join(singles, on=["subject", "thing"], how="semi")), "thing", "thing_b"
    )
    paired = pl.concat([pairs["thing"], pairs["thing_b"]]).unique()
    all_pairs = both(held.filter(pl.col("thing").is_in(paired.implode())))
    totals = held.group_by("thing").agg(total=pl.len().cast(pl.Int64))
    pair_totals = all_pairs.group_by("thing", "thing_b").agg(total=pl.len().cast(pl.Int64))
    counted = pl.concat(
        [
            singles.join(totals, on="thing"),
            pairs.join(pair_totals, on=["thing", "thing_b"]),
        ],
        how="diagonal",
    )
    named = things.rename({"thing": "thing_b", "attribute": _KEYS[2], "value": _KEYS[3]})
    return (
        counted.with_columns(elsewhere=pl.col("total") - pl.col("failure_count"))
        .join(things, on="thing")
        .join(named, on="thing_b", how="left")
        .sort("subject", pl.col("thing_b").is_not_null(), "thing", "thing_b")
        .select("subject", *_KEYS, "failure_count", "elsewhere", "in_question")
    )


def _explained_pairs(judged: pl.DataFrame) -> pl.DataFrame:
    """The pairs that add nothing to one of their parts.

    Either that part has nearly the same risk ratio; or, among the failures with that part, the
    other part may be as frequent in the subject as elsewhere, because few have it elsewhere.
    """
    singles = judged.filter(pl.col("other_attribute").is_null()).select(
        "attribute", "value", part_count="failure_count", part_elsewhere="elsewhere"
    )
    pairs = judged.drop_nulls("other_attribute")
    given = pl.concat(
        pairs.join(singles, left_on=on, right_on=["attribute", "value"]).select(
            *_KEYS, "failure_count", "elsewhere", "part_count", "part_elsewhere"
        )
        for on in (_KEYS[:2], _KEYS[2:])
    )
    hits, elsewhere, drawn, others = given.select(pl.exclude(_KEYS)).get_columns()
    tails = fisher_tail(hits, drawn, hits + elsewhere, drawn + others)
    ratio = ((pl.col("failure_count") + 0.5) / (pl.col("part_count") + 1)) / (
        (pl.col("elsewhere") + 0.5) / (pl.col("part_elsewhere") + 1)
    )
    is_new = (ratio > 1 / EXPLAINED) & (adjusted(tails) < MOST_P)
    return given.filter(~is_new).select(_KEYS).unique()
