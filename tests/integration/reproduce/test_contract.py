"""`dlq contract` on real servers: what succeeded is the contract, and who left it first."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from nats.aio.client import Client

from sahool_dlq.errors import ComparisonError
from sahool_dlq.jobs.contract import contract_of
from sahool_dlq.settings import Settings
from support.comparing import Event, Picky, handle_all, measured
from support.running import dlq

SECRET = "hunter2-and-more"


def is_bad(event: Event) -> bool:
    return event["unit"] != "ha" or "crop" not in event


async def filled(settings: Settings, client: Client, **more: Any) -> str:
    """Events of which some leave the contract from the 100th on; the subject."""
    events = list(measured(200))
    for event in events:
        event["password"] = SECRET
    for event in events[100::4]:
        event |= {"unit": "acre", "source_service": "new-service", "producer_version": "3.1"}
    for event in events[151::10]:
        del event["crop"]
    service = Picky(settings, ValueError("no"), fails=is_bad, **more)
    await handle_all(settings, client, service, events)
    return f"{settings.subject_prefix}.analysis.ndvi"


async def test_each_failure_is_dated_to_the_first_event_that_left_the_contract(
    settings: Settings, client: Client
) -> None:
    subject = await filled(settings, client)
    report = await contract_of(settings, subject)
    assert report.consumer == f"{settings.events_stream}/ndvi"
    assert (report.failures, report.fitting, report.lost, report.undrained) == (30, 0, 0, 0)
    told = {str(each.rule): (each.failures, each.first) for each in report.breaches}
    acre, crop = told.pop("`data.unit` is ha"), told.pop("`data.crop` is required")
    assert told == {}
    assert (acre[0], crop[0]) == (25, 5)
    assert acre[1] is not None
    assert crop[1] is not None
    assert (acre[1].sequence, acre[1].publisher) == (101, "new-service")
    assert acre[1].origin == {"data.producer_version": "3.1"}
    assert (crop[1].sequence, crop[1].publisher, crop[1].origin) == (152, "field-service", {})
    # Of one failure, the stream is searched for the first event that broke the same rule.
    for seed in range(3):
        one = await contract_of(settings, subject, limit=1, seed=seed)
        [breach] = one.breaches
        assert breach.failures == 1
        assert breach.first == (acre if breach.rule.keyword == "enum" else crop)[1]
        assert (one.searched_from, one.begins_at) == (1, 1)


async def test_the_command_prints_a_schema_that_the_successes_fulfil(
    settings: Settings, client: Client
) -> None:
    subject = await filled(settings, client)
    done = await dlq(settings, "contract", subject)
    assert done.exit_code == 1
    assert "30 of 30 failing events left the contract" in done.stdout
    assert "`data.unit` is ha: 25 do not" in done.stdout
    assert ", sequence 101, by new-service, data.producer_version 3.1" in done.stdout
    as_json = await dlq(settings, "contract", subject, "--json")
    told = json.loads(as_json.stdout)
    assert told["subject"] == subject
    assert told["schema"]["properties"]["unit"] == {"type": "string", "enum": ["ha"]}
    assert "producer_version" not in told["schema"]["required"]
    Draft202012Validator.check_schema(told["schema"])
    validator = Draft202012Validator(told["schema"])
    good = [event | {"password": "[redacted]"} for event in measured(200)]
    assert all(validator.is_valid(event) for event in good)
    assert not validator.is_valid(good[0] | {"unit": "acre"})
    assert SECRET not in done.output + as_json.output


async def test_the_search_is_bounded_and_says_so(settings: Settings, client: Client) -> None:
    subject = await filled(settings, client)
    done = await dlq(settings, "contract", subject, "--read", "10", "--limit", "3", "--seed", "5")
    assert "Nothing before sequence" in done.stderr


async def test_a_consumer_without_failures_has_a_contract_too(
    settings: Settings, client: Client
) -> None:
    await handle_all(settings, client, Picky(settings), list(measured(80)))
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    with pytest.raises(ComparisonError, match="say with --consumer who handles it"):
        await contract_of(settings, subject)
    done = await dlq(settings, "contract", subject, "--consumer", "ndvi")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "0 of 0 failing events left the contract" in done.stdout
    with pytest.raises(ComparisonError, match=r"gets no events of other\.subject"):
        await contract_of(settings, "other.subject", consumer="ndvi")
    with pytest.raises(ComparisonError, match="there is no consumer"):
        await contract_of(settings, subject, consumer="nobody")


async def test_few_successes_are_no_contract(settings: Settings, client: Client) -> None:
    await handle_all(settings, client, Picky(settings), list(measured(20)))
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    with pytest.raises(ComparisonError, match="has handled only 20 events"):
        await contract_of(settings, subject, consumer="ndvi")
