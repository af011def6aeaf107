"""Survival and incidence on random censored data are those that statsmodels computes."""

import random

import polars as pl
import pytest
from statsmodels.duration.survfunc import CumIncidenceRight, SurvfuncRight

from sahool_dlq.analysis.marts.resolution import CAUSES, curves, summaries


def observed(seed: int, n: int = 400) -> pl.DataFrame:
    """Cases with competing causes, each censored at a different time; with ties."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        ends = {cause: rng.expovariate(0.01 * (k + 1)) for k, cause in enumerate(CAUSES)}
        cause = min(ends, key=lambda name: ends[name])
        until = rng.uniform(1, 120)
        is_open = until < ends[cause]
        rows.append((float(round(min(until, ends[cause]))), "open" if is_open else cause, "x", 1))
    columns = ["duration_seconds", "cause", "value", "case_count"]
    return pl.DataFrame(rows, schema=columns, orient="row")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_survival_is_that_of_statsmodels(seed: int) -> None:
    frame = observed(seed)
    time, is_ended = frame["duration_seconds"].to_numpy(), (frame["cause"] != "open").to_numpy()
    oracle = SurvfuncRight(time, is_ended.astype(int))
    curve = curves(frame, ("value",)).filter(pl.col("ended") > 0)
    assert curve["t_seconds"].to_list() == oracle.surv_times.tolist()
    assert curve["survival"].to_list() == pytest.approx(oracle.surv_prob.tolist())
    assert curve["at_risk"].to_list() == oracle.n_risk.tolist()
    summary = summaries(curves(frame, ("value",)), ("value",)).row(0, named=True)
    assert summary["median_seconds"] == oracle.quantile(0.5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:statsmodels")  # of its standard errors
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_incidence_by_cause_is_that_of_statsmodels(seed: int) -> None:
    frame = observed(seed)
    number = {"open": 0} | {cause: k for k, cause in enumerate(CAUSES, 1)}
    status = frame["cause"].replace_strict(number).to_numpy()
    oracle = CumIncidenceRight(frame["duration_seconds"].to_numpy(), status)
    found = dict(zip(oracle.times.tolist(), zip(*map(list, oracle.cinc), strict=True), strict=True))
    curve = curves(frame, ("value",))
    for t, *incidence in curve.select("t_seconds", *CAUSES).iter_rows():
        if t in found:
            assert incidence == pytest.approx(list(found[t]))
    assert len(found) > 30
