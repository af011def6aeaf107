"""The contract that succeeding events fulfil, learned as a JSON Schema."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sahool_dlq.analysis.why.contract import LEAST_BODIES, learned
from sahool_dlq.simulation.planted import PLANTED, planted_sample


def bodies(count: int = 100, **more: Any) -> list[dict[str, Any]]:
    return [
        {"unit": ("ha", "m2")[n % 2], "area": 0.5 + n / 10, "note": "x" * (n % 23), **more}
        for n in range(count)
    ]


def said(contract: Any, body: Any) -> set[str]:
    [rules] = contract.broken([body])
    return set(map(str, rules))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"unit": "acre"}, "`data.unit` is ha or m2"),
        ({"area": "12"}, "`data.area` is of type number"),
        ({"area": 4_000}, "`data.area` is at most 20.3"),
        ({"area": -1}, "`data.area` is at least 0"),
        ({"note": "x" * 80}, "`data.note` has at most 44 characters"),
        ({"note": None}, "`data.note` is of type string"),
    ],
)
def test_a_rule_is_said_in_words(change: dict[str, Any], rule: str) -> None:
    contract = learned(bodies())
    assert said(contract, bodies()[7]) == set()
    assert said(contract, bodies()[7] | change) == {rule}


def test_a_missing_key_is_named_by_its_path_also_in_arrays() -> None:
    items = [{"sku": f"s{n}", "price": n + 0.5} for n in range(3)]
    contract = learned(bodies(items=items))
    assert said(contract, {**bodies()[0], "items": [items[0], {"sku": "s2"}]}) == {
        "`data.items[].price` is required"
    }
    assert said(contract, {}) == {
        f"`data.{name}` is required" for name in ("unit", "area", "note", "items")
    }
    assert said(contract, []) == {"`data` is of type object"}


def test_what_comes_new_or_seldom_breaks_no_contract() -> None:
    """New tenants and versions, other ids, and keys that not every event has."""
    known = [
        {**body, "tenant_id": "farm-1", "producer_version": "3.0", "id": f"i{n}", "rare": n % 2}
        for n, body in enumerate(bodies())
    ]
    for body in known[::2]:
        del body["rare"]
    contract = learned(known)
    new = {**known[1], "tenant_id": "farm-9", "producer_version": "3.1", "id": "j1", "more": 1}
    assert said(contract, new) == set()


def test_masked_texts_have_no_rules_about_their_mask() -> None:
    contract = learned(bodies(mail="[redacted:email]"))
    assert contract.schema["properties"]["mail"] == {"type": "string"}


def test_a_contract_of_few_bodies_has_no_rules() -> None:
    contract = learned(bodies(LEAST_BODIES - 1))
    assert said(contract, {"anything": 1}) == set()
    assert contract.bodies == LEAST_BODIES - 1


def test_any_bodies_have_a_contract() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = {"a": [deep]}
    odd = [None, True, "text", 10**400, [], [[1], {"": {"": None}}], deep, 1e308, -(10**308)]
    contract = learned(odd * 20)
    Draft202012Validator.check_schema(contract.schema)
    assert all(rules == set() for rules in contract.broken(odd))
    wide = learned([{f"key{n}-{m}": m for m in range(5)} for n in range(100)])
    assert wide.schema["type"] == "object"
    assert "properties" not in wide.schema


IN_A_BODY = [
    kind
    for kind, planted in PLANTED.items()
    if all(path.startswith("data.") for path in planted.told)
]


@pytest.mark.parametrize("kind", IN_A_BODY)
def test_planted_changes_break_the_rule_of_their_key(kind: str) -> None:
    failing, succeeding = planted_sample(11, kind, failing=100, succeeding=600)
    good = [each.body for each in succeeding]
    contract = learned(good[:400])
    [path] = PLANTED[kind].told
    broken = contract.broken([each.body for each in failing])
    assert sum(any(rule.path == path for rule in rules) for rules in broken) >= 75
    # Of others that succeed, few leave it by chance.
    assert sum(map(bool, contract.broken(good[400:]))) <= 4
