"""The share of planted secrets that a drain stores, and of harmless texts that it masks."""

import json
from collections.abc import Iterable, Iterator, Sequence

import polars as pl
import pytest

from sahool_dlq.deadletter.redaction.redactor import Redactor
from support import secret_corpus as corpus

REDACTOR = Redactor()
SEEDS = range(3)
LABELS = ("original_subject", "handler", "dlq_reason", "consumer_version")
LIMIT = 0.02


def places(text: str) -> dict[str, str]:
    """One text in every column that a drain masks, and in all forms of bodies."""
    trace = (
        f'Traceback (most recent call last):\n  File "/a.py", line 3, in f\n    g(x)\nE: {text}\n'
    )
    return {
        "error_message": text,
        "stack_trace": trace,
        "parse_error": f"cannot be read: {text}",
        "original_data": json.dumps({"id": 7, "note": text}, ensure_ascii=False),
        "original_data, escaped": json.dumps({"a": [{"note": text}]}),
        "original_headers": json.dumps({"X-Note": [text, "x"]}),
        "attempts": json.dumps([{"at": "2026-01-01T00:00:00Z", "error_message": text}]),
        **({"original_data, itself": text} if text[0] in "{[" and is_json(text) else {}),
    }


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def stored(texts: Sequence[dict[str, str]]) -> Iterator[dict[str, str]]:
    """What a drain stores for each text, by column; the texts of a place are one column."""
    kept: list[dict[str, str]] = [{} for _ in texts]
    for place in sorted({place for columns in texts for place in columns}):
        rows = [number for number, columns in enumerate(texts) if place in columns]
        frame = pl.DataFrame({place.partition(",")[0]: [texts[row][place] for row in rows]})
        for row, text in zip(rows, REDACTOR.redact_frame(frame).to_series(), strict=True):
            kept[row][place] = text
    return iter(kept)


def made(lines: Iterable[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Each line with its secrets filled in, for each seed; the line, the text, the secrets."""
    for line in lines:
        for seed in SEEDS:
            text, secrets = corpus.made(line, seed)
            yield line, text, secrets


def leaks(lines: Iterable[str], *, in_labels: bool) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    planted = list(made(lines))
    columns = [
        places(text) | (dict.fromkeys(LABELS, text[:100]) if in_labels and "\n" not in text else {})
        for _, text, _ in planted
    ]
    for (line, _, secrets), masked in zip(planted, stored(columns), strict=True):
        assert secrets, line
        for place, kept in masked.items():
            plain = (
                json.loads(kept)
                if "data" in place or place in ("original_headers", "attempts")
                else kept
            )
            flat = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
            if any(len(s) >= 4 and (s in flat or s[:100] in flat) for s in secrets):
                found.setdefault(line, set()).add(place)
    return found


def key_leaks(keys: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    planted = [
        (key, corpus.Values(f"{key}{seed}").value("n_6" if "code" in key else "pw"))
        for key in keys
        for seed in SEEDS
    ]
    documents = [
        {
            "original_data": json.dumps({"a": {key: secret}}, ensure_ascii=False),
            "original_data, escaped": json.dumps({"a": [{key: secret}]}),
            "original_headers": json.dumps({key: [secret]}, ensure_ascii=False),
        }
        for key, secret in planted
    ]
    for masked, (key, secret) in zip(stored(documents), planted, strict=True):
        leaking = {place for place, kept in masked.items() if secret in kept}
        if leaking:
            found.setdefault(key, set()).update(leaking)
    for form in ("{0}={1}", "login failed, {0}: {1}", "{{'{0}': '{1}'}}"):
        texts = [form.format(key, secret) for key, secret in planted]
        for masked, (key, secret), text in zip(
            stored([places(text) for text in texts]), planted, texts, strict=True
        ):
            leaking = {f"{place}: {text}" for place, kept in masked.items() if secret in kept}
            if leaking:
                found.setdefault(key, set()).update(leaking)
    return found


def alarms(lines: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    texts = list(made(lines))
    columns = [places(text) for _, text, _ in texts]
    for (line, _, _), before, masked in zip(texts, columns, stored(columns), strict=True):
        changed = {f"{place}: {kept}" for place, kept in masked.items() if kept != before[place]}
        if changed:
            found.setdefault(line, set()).update(changed)
    return found


def share(found: dict[str, set[str]], whole: int, what: str) -> float:
    print(f"{what}: {len(found)} of {whole}, {len(found) / whole:.1%}")
    for line, where in found.items():
        print(f"  {line!r}: {sorted(where)[:2]}")
    return len(found) / whole


@pytest.mark.parametrize("part", ["developed on", "held out"])
def test_at_most_two_of_a_hundred_kinds_of_secrets_leak(part):
    is_held = part == "held out"
    keys = corpus.HELD_OUT_KEYS if is_held else corpus.KEYS
    lines = corpus.HELD_OUT if is_held else corpus.SECRETS
    numbers = corpus.HELD_OUT_NUMBERS if is_held else corpus.NUMBERS
    found = key_leaks(keys) | leaks(lines, in_labels=True) | leaks(numbers, in_labels=False)
    whole = len(keys) + len(lines) + len(numbers)
    assert share(found, whole, f"leaks, {part}") <= LIMIT
    assert whole >= 130


@pytest.mark.parametrize("part", ["developed on", "held out"])
def test_at_most_two_of_a_hundred_harmless_texts_are_masked(part):
    lines = corpus.HELD_OUT_HARMLESS if part == "held out" else corpus.HARMLESS
    assert share(alarms(lines), len(lines), f"false alarms, {part}") <= LIMIT
