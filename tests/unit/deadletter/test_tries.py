"""Alternatives with merged prefixes match the same as the separate alternatives."""

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahool_dlq.deadletter.redaction.prefilters import Prefilter
from sahool_dlq.deadletter.redaction.tries import trie

PATTERN = r"to|token|tea[|)]x|(?:ab|ac|[x(])d[)]|b?c|(?:ba)+|(?:cat|cow)s?[ ](?:x|y)"


def test_alternatives_are_merged():
    assert trie("token|topic|tea|(?:api|app)_key") == "t(?:o(?:ken|pic)|ea)|ap(?:i_key|p_key)"
    assert trie("pass|passw|a|ab") == "pass|a"  # the shorter is found wherever the longer is


@given(st.lists(st.sampled_from([*"tokenaxcdbs()|[] yw"]), max_size=12).map("".join))
def test_a_trie_finds_what_the_alternatives_find(text):
    assert bool(re.search(trie(PATTERN), text)) == bool(re.search(PATTERN, text))


@pytest.mark.parametrize("pattern", ["(?:a|b", "(?:a[)]"])
def test_a_group_without_end_is_an_error(pattern):
    with pytest.raises(ValueError, match="does not end"):
        trie(pattern)


def test_own_keys_join_the_names():
    cells = {"json": [pl.Series("original_data", ['{"farmPlot": 1}', '{"plain": 1}', None])]}
    assert Prefilter([], []).rows(cells) == {"original_data": []}
    found = Prefilter(["farm_plot"], []).rows(cells)
    assert found == {"original_data": [0]}
    assert Prefilter(["farm(plot)+", "رمز(1)", "x|y"], []).rows(cells) == {"original_data": []}
