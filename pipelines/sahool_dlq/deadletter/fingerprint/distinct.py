"""Costly functions of a column, computed once for each distinct value."""

from collections.abc import Callable

import polars as pl

__all__ = ["per_distinct"]


def per_distinct(
    frame: pl.DataFrame, compute: Callable[[pl.DataFrame], pl.DataFrame]
) -> pl.DataFrame:
    """`compute(frame)`, which works row by row, called only on the distinct rows.

    Rows are distinguished by a 64-bit hash, because joining on long texts costs more than it saves;
    among a million distinct rows, the probability that two share a hash is 3e-8.
    """
    keys = frame.hash_rows().alias("key").to_frame()
    first = keys["key"].arg_unique()
    if len(first) == frame.height:
        return compute(frame)
    distinct = pl.concat([keys[first], compute(frame[first])], how="horizontal")
    return keys.join(distinct, on="key", how="left", maintain_order="left").drop("key")
