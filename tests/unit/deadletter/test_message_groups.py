"""Messages of well-known libraries: other values keep the group, other names split it."""

import re
import string
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.fingerprint.fingerprint import fingerprint
from sahool_dlq.deadletter.fingerprint.template_words import TYPE

_small = st.integers(0, 10**6)
_hex = st.text("0123456789abcdef", min_size=32, max_size=32)
_byte = st.integers(0, 255)
_word = st.text(string.ascii_lowercase, min_size=2, max_size=8)
_hosts = st.one_of(
    st.tuples(_byte, _byte, _byte, _byte).map(lambda p: ".".join(map(str, p))),
    _word.map("{}.example.com".format),
    _word.map("{}.prod.svc.cluster.local".format),
)
_TYPES = re.findall("[A-Za-z]{2,}", TYPE)
_VALUES = {
    "number": st.one_of(
        _small.map(str),
        _small.map("{:,}".format),
        st.decimals(0, 1000, places=2).map(str),
    ),
    "id": st.one_of(
        _small.map(str),
        st.uuids().map(str),
        st.tuples(_word, _small).map(lambda p: f"{p[0]}-{p[1]}"),
        st.tuples(_word, _hex).map(lambda p: f"{p[0]}_{p[1][:12]}7"),
    ),
    "hash": _hex.map("a1{}".format),
    "host": _hosts,
    "address": st.tuples(_hosts, st.integers(1000, 65535)).map(lambda p: f"{p[0]}:{p[1]}"),
    "url": st.tuples(_hosts, _word, _small).map(lambda p: f"https://{p[0]}/{p[1]}/{p[2]}?a={p[2]}"),
    "path": st.lists(_word, min_size=1, max_size=4).map(lambda p: f"/{'/'.join(p)}.csv"),
    "time": st.integers(0, 4 * 10**9).map(lambda t: datetime.fromtimestamp(t, UTC).isoformat()),
    "email": st.tuples(_word, _word).map(lambda p: f"{p[0]}@{p[1]}.org"),
    "duration": st.one_of(
        st.integers(1, 9999).map("{} ms".format),
        st.integers(1, 900).map("{}s".format),
        st.integers(2, 90).map("{} minutes".format),
        st.decimals(0, 90, places=1).map("{} s".format),
    ),
    "size": st.one_of(
        st.integers(1, 9999).map("{} bytes".format), st.integers(1, 99).map("{}.5 MB".format)
    ),
    # A type's name says what went wrong.
    "text": st.lists(_word.filter(lambda word: word not in _TYPES), min_size=1, max_size=3).map(
        " ".join
    ),
}
_MESSAGES = [
    "field {id} not found",
    "tenant {id} used {number} of {number} requests",
    "no answer from {address} within {duration}",
    "Connection to {host} timed out. (connect timeout={number})",
    "GET {url} took {duration}",
    "404 Client Error: Not Found for url: {url}",
    "[Errno 2] No such file or directory: '{path}'",
    "ENOENT: no such file or directory, open '{path}'",
    "late since {time}",
    "could not write to {email}: mailbox full",
    "payload of {size} exceeds the limit",
    "checksum mismatch: expected {hash}, got {hash}",
    "invalid literal for int() with base 10: '{text}'",
    'invalid input syntax for type integer: "{text}"',
    'For input string: "{text}"',
    "time data '{text}' does not match format",
    "Object of class [org.sahool.Field] with identifier [{id}]: optimistic locking failed",
    'duplicate key value violates unique constraint "k"\nDETAIL:  Key (id)=({id}) exists.',
    "connect ECONNREFUSED {address}",
    "getaddrinfo ENOTFOUND {host}",
    "Cannot connect to host {address} ssl:default [Name or service not known]",
    "timeout of {number}ms exceeded",
    "Expecting ',' delimiter: line {number} column {number} (char {number})",
    "failed for ids [{number}, {number}, {number}]",
    "1 validation error for Field\narea\n  No integer [type=int_parsing, input_value='{text}']",
]


def group(message: str, kind: str = "SomeError") -> str:
    return fingerprint(kind, message, None).group_id


@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("message", _MESSAGES)
@given(st.data())
def test_other_values_keep_the_group(message: str, data: st.DataObject) -> None:
    def fill() -> str:
        pieces = []
        for text, name, _, _ in string.Formatter().parse(message):
            pieces += [text, data.draw(_VALUES[name]) if name else ""]
        return "".join(pieces)

    one, other = fill(), fill()
    assert group(one) == group(other), (one, other)


_NAMED = [
    'null value in column "{}" of relation "fields" violates not-null constraint',
    'null value in column "area" of relation "{}" violates not-null constraint',
    'violates foreign key constraint "{}"',
    'column "{}" does not exist',
    'relation "{}" does not exist',
    "no such table: {}",
    "UNIQUE constraint failed: fields.{}",
    "E11000 duplicate key error collection: app.fields index: {}_1",
    "permission denied for table {}",
    "'Field' object has no attribute '{}'",
    "module 'numpy' has no attribute '{}'",
    "handle() missing 1 required positional argument: '{}'",
    "handle() got an unexpected keyword argument '{}'",
    "name '{}' is not defined",
    "No module named '{}'",
    "'{}' is a required property",
    "'{}'",
    "Cannot read properties of undefined (reading '{}')",
    'Cast to ObjectId failed for value "x" (type string) at path "{}" for model "Field"',
    "Path `{}` is required.",
    "Operation `{}.findOne()` buffering timed out after 10000ms",
    "An error occurred (AccessDenied) when calling the {} operation: Access Denied",
    "An error occurred ({}) when calling the GetObject operation: no",
    "No qualifying bean of type 'org.sahool.{}' available",
    'Unrecognized field "{}" (class org.sahool.Field), not marked as ignorable',
    "could not execute statement; SQL [n/a]; constraint [{}]",
    "1 validation error for {}\narea\n  Field required [type=missing, input_value=1]",
    "1 validation error for Field\n{}\n  Field required [type=missing, input_value=1]",
    "[{{'type': 'missing', 'loc': ('body', '{}'), 'msg': 'Field required'}}]",
]


@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("message", _NAMED)
@given(st.lists(st.text(string.ascii_letters, min_size=3, max_size=12), min_size=2, max_size=2))
def test_other_names_split_the_group(message: str, names: list[str]) -> None:
    one, other = (message.format(name) for name in names)
    assert (group(one) == group(other)) == (names[0] == names[1]), (one, other)


@pytest.mark.parametrize(
    "message",
    [
        "{} Client Error: x for url: http://a",
        "Request failed with status code {}",
        "too many {} error responses",
        "GET /v1/fields/17 -> {} in 12 ms",
        "HTTP Error {}: x",
        "{}, message='x', url='http://a'",
        "Unexpected server response: {}",
    ],
)
def test_other_status_codes_split_the_group(message: str) -> None:
    codes = (400, 401, 404, 429, 500, 502, 503)
    assert len({group(message.format(code)) for code in codes}) == len(codes)


def test_the_kind_of_a_value_is_no_part_of_the_failure() -> None:
    assert group("field 17 not found") == group(
        "field 4b0a7c1e-58f7-4b43-9f0c-0d5f6f0d9f11 not found"
    )
    assert group("17 is not a valid Color") == group("'purple' is not a valid Color")


_OTHER_FAILURES = [
    # A word between two numbers is a month only if it is the name of one.
    ("节点3超时 1045", "节点3拒绝 1045"),
    ("ステップ3検証失敗 1500ms", "ステップ3書込失敗 1500ms"),
    ("Модуль 5 таймаут 1045", "Модуль 5 отказ 1045"),
    ("Датчик 3 перегрев 12:30", "Датчик 3 обрыв 12:30"),
    ("الخطوة 3 فشل 1045", "الخطوة 3 رفض 1045"),
    ("चरण 3 विफल 1045", "चरण 3 अस्वीकृत 1045"),
    ("Βήμα 3 σφάλμα 1045", "Βήμα 3 άρνηση 1045"),
    # In other languages too a message may be all ASCII.
    ("El campo 'precio' es obligatorio", "El campo 'nombre' es obligatorio"),
    ("Spalte 'preis' fehlt", "Spalte 'menge' fehlt"),
    ("La colonna 'prezzo' non esiste", "La colonna 'nome' non esiste"),
    ("'fiyat' alani zorunlu", "'ad' alani zorunlu"),
    ("codice 404", "codice 500"),
    # Words may stand between that for a code and its number.
    ("código de error: 1045", "código de error: 1062"),
    ("code d'erreur : 1045", "code d'erreur : 1062"),
    ("codice di errore: 1045", "codice di errore: 1062"),
    ("Код ошибки: 1045", "Код ошибки: 1062"),
    ("kod błędu: 1045", "kod błędu: 1062"),
    ("رمز الخطأ: 1045", "رمز الخطأ: 1062"),
    ("错误码：10023", "错误码：10099"),
    ("状态：502", "状态：404"),
    ("Hata kodu: 1045", "Hata kodu: 1062"),
    ("Ошибка 1045 при подключении", "Ошибка 1062 при подключении"),
    # Numbers of lists that somebody keeps, in whatever base
    ("Exception from HRESULT: 0x80070005", "Exception from HRESULT: 0x80070002"),
    ("No access. (0x80004005 (E_FAIL))", "No access. (0x800A03EC (E_FAIL))"),
    ("worker ended with status 0xC0000005", "worker ended with status 0xC0000374"),
    ("AADSTS50011: the login failed", "AADSTS700016: the login failed"),
    ("IDX10223: the token is refused", "IDX10503: the token is refused"),
    ("error TS2322: bad type", "error TS2345: bad type"),
    ("AMQ9202E: no reply", "AMQ9213E: no reply"),
    ("SQL0204N failed", "SQL0551N failed"),
    ("cannot convert float NaN to integer", "cannot convert float infinity to integer"),
    ("took a second connection", "took a third connection"),
]
_SAME_FAILURE = [
    ("Срок истёк 5 мая 2026 г. в 14:05", "Срок истёк 17 ноября 2025 г. в 09:30"),
    ("Feld 'preis' hat Wert 'Strasse'", "Feld 'preis' hat Wert 'Straße'"),
    ("key 'foo' has value 'ble'", "key 'foo' has value 'blé'"),
    ("kod 404 dla 'Zolw'", "kod 404 dla 'Żółw'"),
    ("Error in 'a': bad 'b'", "Error in 'ä': bad 'ö'"),
    ("用户'张三'不存在", "用户'李四'不存在"),
    ("หมดอายุ 5 พฤษภาคม 2569", "หมดอายุ 17 ตุลาคม 2568"),
    ("انتهى في ١٢ رمضان ١٤٤٧", "انتهى في ٣ شوال ١٤٤٦"),
    ("heap at 0x7ffe12345678 is bad", "heap at 0x8ffe1234abcd is bad"),
    ("loss is nan", "loss is 0.25"),
    ("timed out after inf seconds", "timed out after 30 seconds"),
    ("value -inf is out of range", "value -7.5 is out of range"),
    ("finished in 1h 30m", "finished in 5m3.2s"),
    ("finished in 12m", "finished in 1h30m0s"),
    ("retry in PT5M", "retry in PT1H30M"),
    ("no reply for two hours", "no reply for 3 hours"),
    ("closed since 2:05pm", "closed since 11 AM"),
    ("the 3rd call failed", "the 21st call failed"),
]


@pytest.mark.parametrize(("one", "other"), _OTHER_FAILURES)
def test_other_failures_have_other_groups(one: str, other: str) -> None:
    assert group(one) != group(other)


@pytest.mark.parametrize(("one", "other"), _SAME_FAILURE)
def test_the_same_failure_keeps_its_group(one: str, other: str) -> None:
    assert group(one) == group(other)
