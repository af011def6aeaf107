"""Redaction masks planted secrets, and keeps everything else byte for byte."""

import json
import re
import time

import polars as pl
import pytest

from sahool_dlq.deadletter.redaction.redactor import Redactor
from support.planted import (
    HARMLESS,
    KEYED,
    REDACTOR,
    RULED,
    SECRETS,
    around,
    plain,
    without_marks,
)

# Text


@pytest.mark.parametrize("planted", SECRETS)
@pytest.mark.parametrize("redactor", [REDACTOR, KEYED, RULED], ids=["plain", "keyed", "ruled"])
def test_a_planted_secret_goes_and_what_surrounds_it_stays(redactor, planted):
    redacted = redactor.redact_text(plain(planted))
    assert without_marks(redacted) == around(planted)
    assert redactor.redact_text(redacted) == redacted


@pytest.mark.parametrize("planted", SECRETS)
def test_a_planted_secret_goes_from_a_json_string(planted):
    document = json.dumps({"a": 1.10, "note": plain(planted)}, ensure_ascii=False)
    redacted = REDACTOR.redact_json(document)
    note = json.loads(redacted)["note"]
    assert without_marks(note) == around(planted)
    assert REDACTOR.redact_json(redacted) == redacted


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_untouched(text):
    assert REDACTOR.redact_text(text) == text
    document = json.dumps({"note": text, "notes": [text]})
    assert REDACTOR.redact_json(document) == document


@pytest.mark.parametrize("bar", ["", "  | "])
def test_the_error_below_a_frame_without_source_is_no_source(bar):
    """If the code is compiled or deleted, a traceback has no source lines."""
    frame = f'{bar}  File "/srv/price.py", line 41, in pay\n'
    assert "hunter2" not in Redactor().redact_text(
        f"{frame}{bar}Refused: password=hunter2 is old\n"
    )
    code = f"{frame}{bar}    login(password=password)\n{bar}Refused: no\n"
    assert Redactor().redact_text(code) == code


def test_a_trace_keeps_its_frames_and_loses_its_secrets():
    trace = (
        "Traceback (most recent call last):\n"
        '  File "/srv/app/auth/token.py", line 88, in connect\n'
        "    connect('postgresql://dlq:hunter2@db:5432/dlq', token=token)\n"
        '  File "/srv/app/mail.py", line 9, in send\n'
        "    send(to='ali@example.com', password='hunter2')\n"
        "OperationalError: no\n"
    )
    redacted = REDACTOR.redact_text(trace)
    assert "hunter2" not in redacted
    assert "ali@" not in redacted
    assert [line for line in redacted.splitlines() if "File" in line] == [
        line for line in trace.splitlines() if "File" in line
    ]
    assert "@db:5432/dlq', token=token)" in redacted


# JSON


@pytest.mark.parametrize(
    "key",
    [
        *[
            "password",
            "Passwd",
            "PASSWORD",
            "user_password",
            "userPassword",
            "password2",
            "dbpassword",
        ],
        *["secret", "client_secret", "clientSecret", "secrets", "aws-secret-access-key"],
        *["token", "accessToken", "access_token", "X-Auth-Token", "authtoken", "token2"],
        *["api_key", "apikey", "apiKey", "api-key", "APIKey", "X-API-Key", "api_keys", "api.key"],
        *["Authorization", "proxy-authorization", "credentials", "credential", "auth"],
        *[
            "private_key",
            "privateKey",
            "Cookie",
            "Set-Cookie",
            "sessionId",
            "session_id",
            "sessionid",
        ],
        *["access_key", "accessKeyId", "AWS_ACCESS_KEY_ID", "pwd", "passphrase", "jwt", "cvv"],
    ],
)
@pytest.mark.parametrize("value", ['"hunter2"', "17", "1.10", "[1, [2]]", '{"a": {"b": "}]"}}'])
def test_the_whole_value_of_a_sensitive_key_is_masked(key, value):
    document = f'{{"n": 1.10, "{key}" : {value} , "m": [1e5]}}'
    expected = f'{{"n": 1.10, "{key}" : "[redacted:secret]" , "m": [1e5]}}'
    assert REDACTOR.redact_json(document) == expected
    assert REDACTOR.redact_json(expected) == expected
    frame = pl.DataFrame({"original_data": [document]})
    assert REDACTOR.redact_frame(frame)["original_data"].to_list() == [expected]


@pytest.mark.parametrize("value", ["true", "false", "null", '""'])
def test_that_there_is_no_secret_is_no_secret(value):
    document = f'{{"secret": {value}, "password": {value}}}'
    assert REDACTOR.redact_json(document) == document


@pytest.mark.parametrize(
    "key",
    [
        *["tokens_used", "tokenizer", "max_tokens", "token_count", "tokenType", "token_expires_at"],
        *["secretary", "author", "authorized", "authentication", "auth_method", "password_policy"],
        *[
            "cookiecutter",
            "key",
            "keys",
            "public_key",
            "monkey",
            "session",
            "tenant_id",
            "field_id",
        ],
        *["farmer_id", "accessory", "passenger", "compass"],
    ],
)
def test_a_harmless_key_is_left_alone(key):
    document = f'{{"{key}": "x", "more": {{"{key}": [512]}}}}'
    assert REDACTOR.redact_json(document) == document


def test_numbers_keep_their_spelling_and_are_never_matched():
    document = (
        '{"a":1.10,"b":1e5,"c":12345678901234567890,"d":4111111111111111,"e":-0.0,'
        '"f":[14155550123, 0.4111111111111111],  "mail" :"ali@example.com"}'
    )
    expected = document.replace("ali@example.com", "[redacted:email]")
    assert REDACTOR.redact_json(document) == expected


def test_untouched_json_is_byte_identical_whatever_its_spelling():
    document = ' { "a" : "\\u0641\\/\\n" ,\t"b":[ ], "حقل":"قمح", "a":2 } '
    assert REDACTOR.redact_json(document) == document


def test_escapes_hide_nothing():
    document = '{"tok\\u0065n": "a", "x": "ali\\u0040example.com", "y": "postgres:\\/\\/u:p@h"}'
    redacted = json.loads(REDACTOR.redact_json(document))
    assert redacted == {
        "token": "[redacted:secret]",
        "x": "[redacted:email]",
        "y": "postgres://[redacted:credentials]@h",
    }
    frame = REDACTOR.redact_frame(pl.DataFrame({"original_data": [document]}))
    assert json.loads(frame["original_data"][0]) == redacted


def test_json_inside_a_json_string_is_redacted_as_json():
    inner = json.dumps({"password": {"deep": ["hunter2"]}, "n": 1.5, "again": '{"token": 7}'})
    redacted = json.loads(REDACTOR.redact_json(json.dumps({"body": inner})))
    body = json.loads(redacted["body"])
    assert body["password"] == "[redacted:secret]"
    assert json.loads(body["again"]) == {"token": "[redacted:secret]"}


def test_key_names_are_searched_too():
    assert REDACTOR.redact_json('{"ali@example.com": 1}') == '{"[redacted:email]": 1}'


def test_values_of_keys_that_get_one_mask_stay_apart():
    text = (
        '{"a@example.com": 1.10, "b@example.com": {"c@example.com": "{", "\\u0041@example.com": 2},'
        ' "[redacted:email]": 3, "[redacted:email] 2": 4, "note":'
        ' "{\\"a@x.org\\": 5, \\"b@x.org\\": 6}"}'
    )
    redacted = REDACTOR.redact_json(text)
    assert redacted == (
        '{"[redacted:email]": 1.10, "[redacted:email] 2": {"[redacted:email]": "{",'
        ' "[redacted:email] 2": 2}, "[redacted:email] 3": 3, "[redacted:email] 2 2": 4,'
        ' "note": "{\\"[redacted:email]\\": 5, \\"[redacted:email] 2\\": 6}"}'
    )
    assert REDACTOR.redact_json(redacted) == redacted
    many = json.dumps({f"user{number}@example.com": number for number in range(20_000)})
    assert list(json.loads(REDACTOR.redact_json(many)).values()) == list(range(20_000))


def test_a_local_number_is_masked_where_the_key_says_that_it_is_a_phone():
    document = (
        '{"farmerPhone": "777 123 456", "phone_model": "x9", "phone": 777123456, "n": "777123456"}'
    )
    assert REDACTOR.redact_json(document) == document.replace('"777 123 456"', '"[redacted:phone]"')
    listed = '{"X-Phone": [ "x", "777 123 456" ], "n": ["777123456"], "phones": [{"n": "7771234"}]}'
    masked = listed.replace('"777 123 456"', '"[redacted:phone]"')
    assert REDACTOR.redact_json(listed) == masked
    frame = REDACTOR.redact_frame(pl.DataFrame({"original_headers": [listed]}))
    assert frame["original_headers"].to_list() == [masked]


@pytest.mark.parametrize(
    "headers",
    [
        '{"X-Note": ["fine", "password=hunter2"]}',
        '{"Authorization": ["Bearer x", "Bearer hunter2"]}',
        '{"Cookie": ["theme=dark", "sid=hunter2"]}',
        '{"X": ["fine", "https://ali:hunter2@host"]}',
        '{"X": ["fine", "Authorization: Bearer hunter2"]}',
    ],
)
def test_a_secret_in_any_value_of_a_repeated_header_is_masked(headers):
    frame = REDACTOR.redact_frame(pl.DataFrame({"original_headers": [headers]}))
    assert "hunter2" not in frame["original_headers"][0]
    assert "redacted" in frame["original_headers"][0]


@pytest.mark.parametrize(
    "text", ['{"password": "hunter2"', "{'password': 'hunter2'}", "[1, password=x"]
)
def test_malformed_json_is_redacted_as_text(text):
    assert without_marks(REDACTOR.redact_json(text)) == re.sub("hunter2|(?<==)x", "*", text)


def test_json_nested_deeper_than_python_can_go_is_redacted_as_text():
    deep = "[" * 100_000 + '"ali@example.com"' + "]" * 100_000
    assert "[redacted:email]" in REDACTOR.redact_json(deep)


def test_keys_that_nest_deeply_are_walked_without_recursion():
    document = '{"phone":' * 900 + '["ali@example.com"]' + "}" * 900
    assert REDACTOR.redact_json(document) == document.replace("ali@example.com", "[redacted:email]")


# Masks


def test_a_key_makes_masks_that_join_and_do_not_tell():
    one = KEYED.redact_text("from ali@example.com")
    assert re.fullmatch(r"from \[redacted:email:[0-9a-f]{12}\]", one)
    assert one == KEYED.redact_text("from ali@example.com")
    assert one != KEYED.redact_text("from sara@example.com")
    assert one != Redactor(key=b"another").redact_text("from ali@example.com")
    assert json.loads(KEYED.redact_json('{"a": "ali@example.com"}'))["a"] == one[5:]


HOSTILE = """
password password= password:~ password="~ password=${~ password(~ token~ --password~ mysql~
<password> <password~ name=token~ ('password',~ ["password",~ {"name":~" identified~by~ -u~a
Authorization:~ Bearer~ cookie:~ a://a: a@ a. a/ eyJ. sk- -----BEGIN~PRIVATE~KEY----- sig= ?code=
$6$ sqlplus~ aB7- 4 4111~ +1~ GB82~ phone~ https://a/hooks/ aGVs \\" " [ {( \\ = 密码 [redacted:x]
a:b@tcp( a:b@tcp(c)/ #1~a(1):~f(' #1~a(1):~b( a.ex:1:~A.b(" (a~1)~A.b(" called~as~a:b(" {a,b,["
{a,b,["c"],[ arguments~were~given~to~#~1~" a('b')~called~at~ password~„ password~“x password=„
password~«x पासवर्ड पासवर्ड„ ["password"]=>~ ["password":a password]~=>~a [password]=> {password,"
""".split()  # noqa: SIM905  (a list is longer to read)


@pytest.mark.parametrize("piece", HOSTILE)
def test_repeats_of_how_secrets_begin_take_linear_time(piece):
    piece = piece.replace("~", " ")

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        started = time.process_time()
        REDACTOR.redact_text(text)
        return time.process_time() - started

    # Once is enough: the machine may do something else in between.
    assert any(seconds(60_000) < 3 * seconds(30_000) + 0.05 for _ in range(4))


@pytest.mark.parametrize(
    "text",
    [
        "farmPin:{'user': 'ali', 'password': 'hun ter2'}call +967 777 123 456 now",
        "pin_log: {'client_secret': 'hunter2', 'n': 1}key",
        "twilio S" + "K962dddffac4a5e1355ed760356a2bb4dпароль — CeQBWa27k73",
        "call (415) 555-0123 or 415-555-0123PLOT-1234",
        "PLOT-1234docker login -u ali -p m1B3a27ekEQ registry.example",
    ],
)
@pytest.mark.parametrize("redactor", [REDACTOR, RULED], ids=["plain", "ruled"])
def test_what_a_mask_lays_bare_is_masked_at_once(redactor, text):
    once = redactor.redact_text(text)
    assert RULED.redact_text(text) != text
    assert redactor.redact_text(once) == once
