"""The rules file: what it changes, and the error if it is not valid."""

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from sahool_dlq.cli.fingerprint import command
from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint
from sahool_dlq.deadletter.fingerprint.rules import Group, GroupingRules, Merge, Replacement
from sahool_dlq.deadletter.rules import Rules, read_rules

WEATHER = Group(name="weather is down at {host}", error_message="host='(?P<host>[^']*)'")
TRACE = """Traceback (most recent call last):
  File "/srv/app/main.py", line 12, in run
    handle(event)
  File "/srv/app/vendor/retry.py", line 3, in again
    call()
  File "/srv/venv/lib/python3.11/site-packages/acme_maps/tiles.py", line 9, in fetch
    raise ValueError(tile)
ValueError: tile 7
"""
JAVA = """java.lang.IllegalStateException: no
\tat org.acme.Base.guard(Base.java:4)
\tat org.acme.Store.save(Store.java:41)
"""


def grouped(rules: GroupingRules, *failures: tuple[str, str, str | None]) -> list[dict[str, str]]:
    schema = dict.fromkeys(("error_type", "error_message", "stack_trace"), pl.String)
    return add_fingerprint(pl.DataFrame(failures, schema=schema, orient="row"), rules).to_dicts()


def test_a_file_says_everything():
    assert read_rules("") == Rules()
    rules = read_rules(r"""
        [redaction]
        keys = ["farm_pin"]
        allow_keys = ["support_email"]
        allow_columns = ["handler"]
        patterns.iban = '\b[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}\b'

        [grouping]
        our_code = ['site-packages/acme_']
        library_code = ['/vendor/']
        ignored_frames = [':again$']

        [[grouping.replace]]
        pattern = 'parcel [A-Z]+'
        text = 'parcel <id>'

        [[grouping.group]]
        name = "weather is down at {host}"
        error_message = "host='(?P<host>[^']*)'"

        [[grouping.merge]]
        name = "disk full"
        group_ids = ["0123456789abcdef"]
    """)
    assert rules.redaction.keys == ("farm_pin",)
    assert rules.grouping.group == (WEATHER,)
    assert rules.grouping.hash is not None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[redaction]\nkeys\n", "line 2"),
        ("[redaktion]", "unknown field `redaktion`"),
        ("[redaction]\nkeys = [1]", "redaction.keys.* `str`, got `int`"),
        ("[redaction]\nkeys = ['']", "redaction: key '' has no letter"),
        (
            "[redaction]\npatterns.a = '('",
            "redaction: pattern a: '\\(' is not a regular expression",
        ),
        ("[redaction]\npatterns.a = '(?!x)y'", "pattern a: .*look-around"),
        ("[redaction]\npatterns.a = 'x*'", "pattern a: .*empty text"),
        ("[redaction]\nallow_columns = ['x']", "no column 'x'; there are attempts, "),
        ("[grouping]\nour_code = ['[']", "grouping: our_code: '\\[' is not a regular expression"),
        ("[[grouping.group]]\nname = 'a'", r"grouping.group\[0\]: group 'a' has no pattern"),
        ("[[grouping.group]]\nname='{x}'\nerror_type='y'", "group '{x}': no pattern has a group"),
        ("[[grouping.group]]\nname='a'\nerror_type='('", "group 'a', error_type: '\\(' is no"),
        ("[[grouping.merge]]\nname='a'\ngroup_ids=['1']", "merge 'a': '1' is not a group id"),
        ("[[grouping.replace]]\npattern='a'", "missing required field `text`"),
    ],
)
def test_rules_that_make_no_sense_are_refused_in_one_sentence(text: str, sentence: str):
    with pytest.raises(ValueError, match=sentence) as refused:
        read_rules(text)
    assert "\n" not in str(refused.value)


def test_the_first_group_that_matches_decides_and_captures_split_it():
    rules = GroupingRules(group=(WEATHER, Group(name="network", error_type="Connection")))
    one, same, other, network, plain = grouped(
        rules,
        ("ConnectionError", "host='a' is away", None),
        ("TimeoutError", "host='a' is slow", TRACE),
        ("ConnectionError", "host='b' is away", None),
        ("ConnectionError", "x", None),
        ("KeyError", "x", None),
    )
    assert one["template"] == "weather is down at a"
    assert one["group_id"] == same["group_id"] != other["group_id"]
    assert one["parent_id"] == other["parent_id"] != network["parent_id"]
    assert network["template"] == "network"
    (without,) = grouped(GroupingRules(), ("KeyError", "x", None))
    assert plain["group_id"] == without["group_id"]
    assert plain["fingerprint_rules"] == rules.hash


def test_all_patterns_of_a_group_must_be_found():
    rules = GroupingRules(group=(Group(name="g", error_type="^A$", stack_trace="acme"),))
    names = [row["template"] for row in grouped(rules, ("A", "m", TRACE), ("A", "m", None))]
    assert names == ["g", "m"]


def test_a_replacement_takes_out_a_variable_that_we_do_not_know():
    failures = (("E", "parcel Nord is locked", None), ("E", "parcel West is locked", None))
    assert len({row["group_id"] for row in grouped(GroupingRules(), *failures)}) == 2
    rules = GroupingRules(replace=(Replacement("(parcel) [A-Z][a-z]+", "$1 <name>"),))
    assert {row["template"] for row in grouped(rules, *failures)} == {"parcel <name> is locked"}


def test_merged_groups_are_one_and_say_its_name():
    failures = (("E", "no space left", None), ("OSError", "disk quota exceeded", None))
    one, other = (row["group_id"] for row in grouped(GroupingRules(), *failures))
    rules = GroupingRules(merge=(Merge("disk full", (one, other)),))
    rows = grouped(rules, *failures, ("E", "else", None))
    assert rows[0]["group_id"] == rows[1]["group_id"] != rows[2]["group_id"]
    assert [row["template"] for row in rows] == ["disk full", "disk full", "else"]


def test_rules_say_whose_a_frame_is_and_which_tell_nothing():
    def frames(trace: str, **rules: tuple[str, ...]) -> str:
        return grouped(GroupingRules(**rules), ("ValueError", "x", trace))[0]["frames"]

    assert frames(TRACE) == "vendor.retry:again < main:run"
    assert frames(TRACE, library_code=("/vendor/",)) == "main:run"
    assert frames(TRACE, ignored_frames=(":again$",)) == "main:run"
    ours = frames(TRACE, our_code=("(?i)site-packages/ACME_",))
    assert ours == "acme_maps.tiles:fetch < vendor.retry:again < main:run"
    assert frames(JAVA, ignored_frames=(r"^org\.acme\.Base:",)) == "org.acme.Store:save"
    assert frames(JAVA, library_code=(r"\.Base$", "x")) == "org.acme.Store:save"


def test_the_hash_tells_rules_apart_and_nothing_else():
    assert GroupingRules().hash is None
    assert GroupingRules(group=(WEATHER,)).hash == GroupingRules(group=(WEATHER,)).hash
    assert GroupingRules(group=(WEATHER,)).hash != GroupingRules(our_code=("x",)).hash


# dlq fingerprint


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_fingerprint_prints_a_group_a_line_and_names_bad_lines(tmp_path: Path):
    file = tmp_path / "failures.jsonl"
    good = {"error_type": "a.ValueError", "error_message": "tile 7 of ali@example.com"}
    file.write_bytes(
        b"\n".join(
            [
                json.dumps(good | {"stack_trace": TRACE, "id": 1}).encode(),
                b"",
                b"not JSON",
                b'{"error_type": 1}',
                b"\xff",
                json.dumps(good).encode(),
            ]
        )
    )
    done = CliRunner().invoke(command, [str(file)])
    assert done.exit_code == 1
    first, last = lines(done.stdout)
    keys = [
        *("line", "group_id", "parent_id", "cause_id", "type", "template", "language", "chain"),
        "frames",
    ]
    assert list(first) == keys
    assert (first["language"], first["chain"]) == ("python", ["ValueError"])
    assert (last["language"], last["chain"]) == (None, [])
    assert (first["line"], last["line"]) == (1, 6)
    assert (first["type"], first["template"]) == ("ValueError", "tile <n> of <email>")
    assert (first["frames"], last["frames"]) == (["vendor.retry:again", "main:run"], [])
    told = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["line 3", "line 4", "line 5"]


def test_fingerprint_reads_standard_input_and_the_rules_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rules = tmp_path / "rules.toml"
    monkeypatch.setenv("DLQ_RULES_FILE", str(rules))
    rules.write_text("[[grouping.group]]\nname = 'one'\nerror_type = 'E'\n")
    failure = '{"error_type": "E", "error_message": "x"}\n'
    done = CliRunner().invoke(command, ["-"], input=failure)
    assert done.exit_code == 0, done.output
    assert [line["template"] for line in lines(done.stdout)] == ["one"]
    rules.write_text("[grouping]\nour_code = 'x'\n")
    done = CliRunner().invoke(command, ["-"], input=failure)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"dlq: The rules in {rules} cannot be used: grouping.our_code: ")
