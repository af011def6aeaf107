"""Each pattern that is made from the table finds the tokens of every vendor."""

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahool_dlq.deadletter.redaction.token_prefixes import (
    _TOKENS,
    SOLID_NEEDLES,
    VENDOR_HINT,
    VENDOR_NEEDLES,
    VENDOR_TOKEN,
)


def tokens(prefix: str, tail: str) -> st.SearchStrategy[str]:
    text = re.escape(prefix) + re.sub(r"\(\?!.*", "", tail)
    return st.from_regex(re.compile(text, re.ASCII), fullmatch=True)


@pytest.mark.parametrize("token", _TOKENS, ids=lambda token: token.prefixes[0])
@given(data=st.data())
def test_a_token_is_masked_and_worth_a_look(token, data: st.DataObject) -> None:
    found = data.draw(st.sampled_from(token.prefixes).flatmap(lambda p: tokens(p, token.tail)))
    match = VENDOR_TOKEN.search(f"it said {found}, twice")
    assert match is not None
    assert match[0] == found
    assert any(needle in found for needle in VENDOR_NEEDLES)
    if found.isalnum():
        assert any(needle in found for needle in SOLID_NEEDLES)
    assert pl.Series([f"it said {found}"]).str.contains(VENDOR_HINT).item()


@pytest.mark.parametrize("text", ["sk-1", "key-of-the-field", "SAHOOL", "NRW", "circle_12"])
def test_a_name_without_a_random_part_is_none(text: str) -> None:
    assert VENDOR_TOKEN.search(text) is None
