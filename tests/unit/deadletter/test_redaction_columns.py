"""Redaction by column gives the same as redaction of each value."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.record import LABEL_COLUMNS, LONG_TEXT_LIMIT, TEXT_LIMITS
from sahool_dlq.deadletter.redaction.redactor import RedactionRules, Redactor
from support.planted import (
    HARMLESS,
    JWT,
    KEYED,
    REDACTOR,
    RULED,
    SECRETS,
    plain,
)


@pytest.mark.parametrize(
    "text",
    [
        *["auth\thunter2x", "call\n0551234567", "at\n4111111111111111", "iqama رقم 2123456789"],
        *["اتصل0551234567", "pin192.1: x1y2z3", "farmPinEAN 4068097156218", "\u212aey é"],
        *["رقم\t٠٥٥١٢٣٤٥٦٧", "توكن=abc123xyz", "toKen=abc123xyz", "x=é@example.com"],
    ],
)
def test_columns_find_what_escapes_and_foreign_letters_stand_beside(text):
    documents = [json.dumps({"a": [text]}, ensure_ascii=ascii_) for ascii_ in (True, False)]
    frame = REDACTOR.redact_frame(
        pl.DataFrame(
            {"stack_trace": ["x\n" + text, text], "original_data": documents, "handler": [text] * 2}
        )
    )
    assert frame["stack_trace"].to_list() == [REDACTOR.redact_text(t) for t in ("x\n" + text, text)]
    assert frame["original_data"].to_list() == [REDACTOR.redact_json(d) for d in documents]
    assert frame["handler"][0] == REDACTOR.redact_label(text)


def test_opaque_bytes_become_a_note_of_their_size():
    frame = pl.DataFrame(
        {
            "original_data": ['{"base64":"aGVsbG8="}', '{"base64": "aGVsbG8="}', "{}", None],
            "payload_encoding": ["base64", "json", None, "base64"],
        }
    )
    redacted = REDACTOR.redact_frame(frame)
    note = '{"base64": "[redacted 5 bytes]"}'
    assert redacted["original_data"].to_list() == [note, '{"base64": "aGVsbG8="}', "{}", None]
    rules = RedactionRules(patterns={"code": "[a-z]{4}64"})  # finds the note's own key
    assert Redactor(rules).redact_frame(frame)["original_data"][0] == note
    assert REDACTOR.redact_frame(redacted).equals(redacted)


def test_labels_lose_secrets_and_keep_what_looks_like_a_card_or_phone():
    frame = pl.DataFrame(
        {
            "event_id": ["4111111111111111", "ali@example.com"],
            "handler": ["fields:update", "f(token=abc)"],
            "error_type": ["KeyError", f"E {JWT}"],
            "original_subject": ["sahool.415-555-0123.x", "sahool.f.x"],
            "tenant_id": ["ali@example.com", "t"],
        }
    )
    assert REDACTOR.redact_frame(frame).to_dict(as_series=False) == {
        "event_id": ["4111111111111111", "[redacted:email]"],
        "handler": ["fields:update", "f(token=[redacted:secret])"],
        "error_type": ["KeyError", "E [redacted:jwt]"],
        "original_subject": ["sahool.415-555-0123.x", "sahool.f.x"],
        "tenant_id": ["ali@example.com", "t"],
    }


def test_the_given_frame_is_not_changed():
    frame = pl.DataFrame({"error_message": ["a@b.com", "x"], "n": [1, 2]})
    before = frame.clone()
    assert REDACTOR.redact_frame(frame)["error_message"].to_list() == ["[redacted:email]", "x"]
    assert frame["error_message"].to_list() == before["error_message"].to_list() == ["a@b.com", "x"]


def test_masks_never_outgrow_their_column():
    frame = pl.DataFrame(
        {"event_id": ["a@b.co " * 36], "original_data": ['{"a": "' + "a@b.co " * 140_000 + '"}']}
    )
    redacted = KEYED.redact_frame(frame)
    assert len(redacted["event_id"][0]) <= TEXT_LIMITS["event_id"]
    assert len(redacted["original_data"][0]) <= LONG_TEXT_LIMIT
    assert json.loads(redacted["original_data"][0])


def test_frames_without_rows_or_columns_pass():
    assert REDACTOR.redact_frame(pl.DataFrame({"n": [1]})).equals(pl.DataFrame({"n": [1]}))
    empty = pl.DataFrame(schema={"error_message": pl.String, "original_data": pl.String})
    assert REDACTOR.redact_frame(empty).equals(empty)


_fragments = st.sampled_from(
    [
        *map(plain, SECRETS),
        *HARMLESS,
        *[
            "password",
            "token",
            "api",
            "_",
            "-",
            "key",
            "auth",
            "Bearer",
            "=",
            ":",
            "@",
            "//",
            "'",
            '"',
        ],
        *[
            "\\",
            "{",
            "}",
            "[",
            "]",
            "a.co",
            "4111",
            "1111",
            "555",
            "+1",
            "(",
            ")",
            "\n",
            "\t",
            "\x1c",
        ],
        *[
            "K",
            "ſ",
            "é",
            "حقل",
            "[redacted:email]",
            "[redacted:x:0123456789ab]",
            "PLOT-1234",
            "farmPin",
        ],
    ]
)
texts = st.lists(_fragments | st.text(max_size=3), max_size=6).flatmap(
    lambda parts: st.sampled_from(["", " "]).map(lambda joint: joint.join(parts))
)
labels = texts.map(lambda text: text[: TEXT_LIMITS["handler"]])
documents = st.recursive(
    texts | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
).flatmap(lambda value: st.booleans().map(lambda ascii_: json.dumps(value, ensure_ascii=ascii_)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(texts, documents | texts, labels), min_size=1, max_size=4))
@pytest.mark.parametrize("redactor", [REDACTOR, RULED], ids=["plain", "ruled"])
def test_columns_and_scalars_agree(redactor, rows):
    frame = pl.DataFrame(
        rows,
        schema=dict.fromkeys(["stack_trace", "original_data", "handler"], pl.String),
        orient="row",
    )
    redacted = redactor.redact_frame(frame)
    for (text, document, label), row in zip(rows, redacted.iter_rows(), strict=True):
        assert row[0] == redactor.redact_text(text)
        assert row[1] == redactor.redact_json(document)
        assert row[2] == redactor.redact_label(label)[: TEXT_LIMITS["handler"]]


@settings(max_examples=300, deadline=None)
@given(texts, documents)
@pytest.mark.parametrize("redactor", [REDACTOR, RULED], ids=["plain", "ruled"])
def test_redaction_is_idempotent_and_json_stays_json(redactor, text, document):
    once = redactor.redact_text(text)
    assert redactor.redact_text(once) == once
    redacted = redactor.redact_json(document)
    assert redactor.redact_json(redacted) == redacted
    json.loads(redacted)


def test_label_columns_leave_out_tenant_field_farmer_and_our_own_ids():
    kept = {"tenant_id", "field_id", "farmer_id", "failure_id", "root_failure_id", "redrive_id"}
    assert not kept & set(LABEL_COLUMNS)
