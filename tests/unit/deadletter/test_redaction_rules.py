"""Redaction with a user's own rules: keys, patterns, allowed keys."""

import json
import time

import msgspec
import polars as pl
import pytest

from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.fingerprint.stack_trace import read_outline
from sahool_dlq.deadletter.fingerprint.traces.python import PYTHON
from sahool_dlq.deadletter.redaction.redactor import RedactionRules, Redactor
from support.planted import (
    RULES,
)


def test_rules_add_keys_and_patterns_and_allow_keys():
    document = '{"farmPin": 1, "note": "PLOT-1234", "support_email": "a@b.com", "mail": "a@b.com"}'
    redacted = json.loads(Redactor(RULES).redact_json(document))
    assert redacted == {
        "farmPin": "[redacted:secret]",
        "note": "[redacted:plot]",
        "support_email": "a@b.com",
        "mail": "[redacted:email]",
    }
    assert Redactor(RULES).redact_text("FARM_PIN=12 x") == "FARM_PIN=[redacted:secret] x"


def test_rules_come_from_json():
    text = (
        b'{"keys": ["farm_pin"], "patterns": {"plot": "PLOT-[0-9]{4}"},'
        b' "allow_keys": ["support_email"]}'
    )
    assert msgspec.json.decode(text, type=RedactionRules) == RULES


@pytest.mark.parametrize(
    "patterns", [{"plot": "("}, {"My plot": "x"}, {"": "x"}, {"plot": "x*"}, {"plot": "(?<=x)y"}]
)
def test_a_rule_that_can_not_work_is_refused(patterns):
    with pytest.raises(ValueError, match="pattern"):
        Redactor(RedactionRules(patterns=patterns))


@pytest.mark.parametrize(
    "pattern", ["^PLOT-[0-9]+$", r"\APLOT-1\b", r"\bPLOT-\d+", r"(?i)plot-[^^$0]", "PLOT-1(?:$|x)"]
)
def test_anchored_patterns_are_found_by_column_too(pattern):
    redactor = Redactor(RedactionRules(patterns={"plot": pattern}))
    frame = pl.DataFrame(
        {"original_data": ['{"a": "PLOT-1"}', "{}"], "error_message": ["PLOT-1", "x"]}
    )
    redacted = redactor.redact_frame(frame)
    assert redacted["original_data"].to_list() == ['{"a": "[redacted:plot]"}', "{}"]
    assert redacted["error_message"].to_list() == ["[redacted:plot]", "x"]


def test_rules_take_keys_of_any_script():
    redactor = Redactor(RedactionRules(keys=("رمز_المزرعة",)))
    document = json.dumps({"رمز المزرعة": "x17", "رمز_الحقل": "x17"}, ensure_ascii=False)
    for text in (document, json.dumps(json.loads(document))):
        frame = redactor.redact_frame(pl.DataFrame({"original_data": [text]}))
        assert json.loads(frame.item()) == {"رمز المزرعة": "[redacted:secret]", "رمز_الحقل": "x17"}
    with pytest.raises(ValueError, match="no letter"):
        RedactionRules(keys=("12",))


def test_a_pattern_that_backtracks_elsewhere_takes_linear_time():
    nested = "(a+)+$"
    text = "a" * 50_000 + "!"
    redactor = Redactor(RedactionRules(patterns={"nested": nested}))
    frames = GroupingRules(our_code=(nested,), library_code=(nested,), ignored_frames=(nested,))
    trace = (
        f'Traceback (most recent call last):\n  File "/{text}.py", line 1, in {text}\n    x\nE: x\n'
    )
    started = time.process_time()
    assert redactor.redact_text(text) == text
    assert redactor.redact_text("aaa") == "[redacted:nested]"
    read_outline(trace.splitlines(), PYTHON, frames.frames)
    assert time.process_time() - started < 10
