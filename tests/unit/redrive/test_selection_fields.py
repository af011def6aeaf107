"""The conditions of a selection are declared once; the command and the forms have them all."""

from collections.abc import Mapping
from dataclasses import fields

import click
import pytest

from sahool_dlq.cli.selecting import selecting
from sahool_dlq.orchestration.forms import Failures, Further
from sahool_dlq.redrive.choose.selection import CONDITIONS, Selection

FORM_FIELDS = {
    "group_id": "group", "error_types": "error_type", "tenant_id": "tenant",
    "since": "failed_within",
}  # fmt: skip
NOT_IN_FORMS = {"until"}


@pytest.fixture
def parameters() -> Mapping[str | None, click.Parameter]:
    """What the flags of a selection add to a verb."""

    @click.command
    @selecting()
    def verb() -> None: ...

    return {each.name: each for each in verb.params}


def test_each_field_that_a_person_gives_is_a_condition() -> None:
    assert [*CONDITIONS, "limit", "due_at"] == [field.name for field in fields(Selection)]


def test_each_condition_is_a_flag_of_the_command(
    parameters: Mapping[str | None, click.Parameter],
) -> None:
    assert list(parameters) == [*CONDITIONS, "limit"]
    for name, condition in CONDITIONS.items():
        flag = parameters[name]
        if isinstance(flag, click.Option):
            assert (flag.opts, flag.help) == ([condition.flag], condition.what)
            assert flag.multiple == isinstance(getattr(Selection(), name), tuple)
        else:
            assert (name, flag.nargs) == ("failure_ids", -1)


def test_each_condition_is_a_field_of_a_form() -> None:
    described = {
        name: field.description
        for form in (Failures, Further)
        for name, field in form.model_fields.items()
    }
    for name in CONDITIONS.keys() - NOT_IN_FORMS:
        assert FORM_FIELDS.get(name, name) in described, name
    assert described["tenant"] == "Only events of this tenant"
    assert Further.model_fields["limit"].default == Selection().limit
