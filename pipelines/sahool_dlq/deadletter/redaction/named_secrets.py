"""Secrets with a name in a text: `password=x`, `--token x`, `<pin>x</pin>`, and in prose."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sahool_dlq.deadletter.redaction.secret_names import KeyKinds, key_words, phrase_kinds
from sahool_dlq.deadletter.redaction.secret_values import (
    OPENING,
    QUOTED,
    QUOTED_OR_BARE,
    TYPOGRAPHIC,
    is_prose,
    is_value,
    looks_random,
)
from sahool_dlq.deadletter.redaction.secret_words import STEMS, UNBOUNDED

__all__ = ["NAMING", "NamedSecrets", "Secret", "told_to_programs"]

_SEPARATOR = (
    r"(?::[ \t]*(?:&?str|[Ss]tring|bytes|SecretStr"
    r"|Optional\[\w{1,20}\])(?:[ \t]*\|[ \t]*None)?[ \t]*="
    r"|=>|:=|={1,3}|:(?![:/]/?)|[：＝]|%3[AaDd])"
)
_BLANK = r"[ \t\u00a0\u202f]"
# PHP: ["password":protected]=> string(7) "hunter2"; Erlang: password => <<"hunter2">>
_VISIBILITY = r"(?::[\w\\\\\":]{0,200}(?:protected|private))?"
_TYPE = r"(?:\s{0,40}string\([0-9]{1,9}\) (?=\\*\")|\s{0,40}(?:int|float)\((?=[0-9])|<<(?=\\*\"))?"
_PRINTED = re.compile(r"[^\s\[)]\S*(?:[ \t]+(?![\[)])\S+)*")  # by print_r, to the next key
_ASSIGNED = re.compile(
    rf"(?<![\w.-])(?<!\[redacted:)(?P<name>[^\W_][\w.-]{{0,200}}|_[\w.-]{{1,200}}|[\w.-]{{1,200}})"
    rf"(?P<sep>(?:\\*[\"'»”]|%22|&quot;)?{_VISIBILITY}\]?{_BLANK}*{_SEPARATOR}{_BLANK}*(?:%22|&quot;)?"
    rf"{_TYPE})"
)
_FLAG = re.compile(
    r"(?<![\w-])--?(?P<name>[A-Za-z][\w.-]{0,60})(?:[ \t]+|[\"'], ?(?=[\"']))(?![-\s])"
)
_SAID = re.compile(
    r"(?<![\w.-])(?<!\[redacted:)(?P<name>[^\W_][\w.-]{1,60})(?:\\*[\"'»”)])?"
    rf"(?:{_BLANK}+|(?={OPENING}))"
    r"(?P<verb>(?:is|was|ist|war|lautet|est|était|es|era|é|هي|هو|это|[-–—]|set to"
    r"|equals)[ \t]*:?[ \t]+)?"
    rf"(?:(?P<text>{TYPOGRAPHIC})"
    r"|(?P<quote>\\*[\"'“«„`])?(?P<value>[^\s\"'“”«»„`<>]{3,200}))"
)
_UNSPACED = re.compile(
    rf"(?P<name>{'|'.join(UNBOUNDED)})(?:是|为|為|は|는|है|คือ|：|:|=)?[ \t]*"
    rf"(?:(?P<text>{TYPOGRAPHIC})|[\"']?(?P<value>[!-~]{{4,200}}))"
)
_ELEMENT = re.compile(
    r"(?:<|&lt;)(?:[\w-]{1,40}:)?(?P<name>[\w.-]{1,60})(?:\s(?:[^<>&]|&(?!gt;)){0,400})?(?:>"
    r"|&gt;)\s*"
    r"(?:<!\[CDATA\[(?P<data>(?:(?!\]\]>)[\s\S]){1,4000})|(?P<value>(?:[^<>&]|&(?!lt;)){1,4000}))"
)
_KEYED_ELEMENT = re.compile(
    r"<[\w:.-]{1,60}\s(?:[^<>]{0,200}\s)?(?:name|key|id"
    r"|field)\s*=\s*[\"'](?P<name>[^\"'<>]{1,60})[\"'][^<>]{0,200}>"
    r"\s*(?:<(?:value|string|val)>\s*)?(?P<value>[^<>]{1,4000})"
)
_NAMES = (
    r"(?:name|key|id|field|param|parameter|header|variable|var|property|attribute|setting|option|k)"
)
_VALUES = r"(?:value|val|data|content|default|v)"
_PAIR = re.compile(
    rf"(?<![\w-])(?i:{_NAMES})\\*[\"']?\s{{0,9}}[:=]\s{{0,9}}\\*[\"']?"
    rf"(?P<name>[\w. -]{{1,60}}?)\\*[\"']?"
    rf"(?:\s{{0,9}}[,;]\s{{0,40}}|\s{{1,40}})\\*[\"']?(?i:{_VALUES})\\*[\"']?\s{{0,9}}[:=]\s{{0,9}}"
)
_PAIR_BACK = re.compile(
    rf"(?<![\w-])(?i:{_VALUES})\\*[\"']?\s{{0,9}}[:=]\s{{0,9}}\\*[\"']"
    rf"(?P<value>[^\"'\\\n]{{1,400}})\\*[\"']"
    rf"(?:\s{{0,9}}[,;]\s{{0,40}}|\s{{1,40}})\\*[\"']?(?i:{_NAMES})\\*[\"']?\s{{0,9}}[:=]\s{{0,9}}"
    r"\\*[\"']?(?P<name>[\w. -]{1,60}?)(?:[\"'\\,}\s/>]|$)"
)
_TUPLE = re.compile(
    r"[(\[]\s{0,9}b?\\*[\"'](?P<name>[\w. -]{1,60})\\*[\"']\s{0,9},\s{0,9}b?\\*[\"']"
    r"(?P<value>[^\"'\\]{3,400})\\*[\"']\s{0,9}[)\]]"
)
_ERLANG = re.compile(  # {password, "hunter2"}, {<<"password">>,<<"hunter2">>}
    r"\{[ \t]*(?P<open><<\\*\"|\\*[\"']|:)?(?P<name>[\w-]{1,60})(?:\\*[\"'](?:>>)?)?[ \t]*,[ \t]*"
    r"(?P<bytes><<)?\\*\"(?P<value>[^\"\\\n]{1,400})\\*\"(?:>>)?[ \t]*\}"
)
_BLOCK = re.compile(
    r"(?m)^(?P<indent>[ \t]*)(?:[^\n]*[ \t])?[\"']?(?P<name>[\w.-]{1,60})[\"']?[ \t]?:[ \t]*"
    r"(?:[|>][+-]?[0-9]?[ \t]*\r?\n(?P<block>(?:(?P=indent)[ \t]+\S[^\n]*(?:\n|$)|[ \t]*\r?\n)+)"
    r"|\r?\n(?P<items>(?:(?P=indent)[ \t]*- [^\n]*(?:\n|$))+))"
)
_LOGIN_FLAG = re.compile(
    r"(?<![\w-])(?:-[uU]|--(?:proxy-)?user|--userpwd|--creds|--auth)(?:[ \t]*=?[ \t]*"
    r"|[\"'], ?)[\"']?"
    r"(?P<user>[^\s\"':/=]{1,64})[:%](?P<value>[^\s\"']{1,200})"
)
_PROGRAM_FLAG = re.compile(
    r"\b(?:(?:mysql[a-z]*|mariadb[a-z-]*)\b[^\n|;&]{0,200}?[ \t]-p|(?:sshpass|docker[ \t]+login"
    r"|podman[ \t]+login)\b"
    r"[^\n|;&]{0,200}?[ \t]-p[ \t]*|redis-cli\b[^\n|;&]{0,200}?[ \t]-a[ \t]+"
    r"|ldap[a-z]+\b[^\n|;&]{0,200}?[ \t]-w[ \t]*)"
    r"[\"']?(?P<value>[^\s\"'-][^\s\"']{0,200})"
)
_IDENTIFIED = re.compile(
    r"(?i)\bidentified[ \t]+(?:with[ \t]+\S{1,40}[ \t]+)?(?:by"
    r"|as)[ \t]+(?:password[ \t]+)?[\"']?(?P<value>[^\s\"';]{1,200})"
)
NAMING = re.compile(r"[\s:=<,%&]")
"""One of these separates a name from its secret in every ASCII text."""
_SOURCE_LINE = re.compile(  # deeper than its frame: a frame without source is followed by the error
    r'^([ |\t]*)File "[^"\n]*", line [0-9]+, in [^\n]*\n(\1[ \t][^\n]*)', re.MULTILINE
)
_CODES = re.compile("pin|otp|code|puk|رمز|验证码|码")


class Secret(NamedTuple):
    """A text to mask: its position, and the name that indicated it."""

    start: int
    end: int
    key: str


class NamedSecrets:
    """Finds values by the names before them."""

    def __init__(self, kind: KeyKinds, keys: Sequence[str]) -> None:
        self._kind = kind
        self._phrase = phrase_kinds(kind, keys)
        self._stems = (*STEMS, *(key_words(key).partition("_")[0] for key in keys))

    def find(self, text: str) -> list[Secret]:
        """The secrets, in order, without overlaps."""
        lower = text.lower()
        if text.isascii() and not any(map(lower.__contains__, self._stems)):
            return []
        found = sorted(self._all(text), key=lambda secret: (secret.start, -secret.end))
        kept: list[Secret] = []
        for secret in found:
            if not kept or secret.start >= kept[-1].end:
                kept.append(secret)
        return kept

    def _all(self, text: str) -> Iterator[Secret]:
        source = (
            [match.span(2) for match in _SOURCE_LINE.finditer(text)] if 'File "' in text else []
        )
        if re.search("[:=：＝]|%3", text):
            yield from self._assigned(text, source)
            yield from self._blocks(text)
            yield from self._whole(_PAIR_BACK, text)
            for match in _PAIR.finditer(text):
                if self._kind(match["name"]) == "secret":
                    yield from self._value(text, match.end(), match["name"], "=", is_source=False)
        if "-" in text:
            for match in _FLAG.finditer(text):
                if self._kind(match["name"]) == "secret":
                    yield from self._value(text, match.end(), match["name"], "=", is_source=False)
        yield from self._said(text, source)
        if "<" in text or "&lt;" in text:
            yield from self._elements(text)
        if "," in text:
            for secret in self._whole(_TUPLE, text):
                if looks_random(text[secret.start : secret.end]):
                    yield secret
            if "{" in text:
                yield from self._tuples(text)

    def _assigned(self, text: str, source: Sequence[tuple[int, int]]) -> Iterator[Secret]:
        position = 0
        while match := _ASSIGNED.search(text, position):
            position = match.end("name")
            name = self._phrase(text, match.start(), match["name"])
            if name is None:
                continue
            is_source = any(start <= match.start() < end for start, end in source)
            for secret in self._value(text, match.end(), name, match["sep"], is_source=is_source):
                yield secret
                position = secret.end

    def _value(
        self, text: str, start: int, name: str, separator: str, *, is_source: bool
    ) -> Iterator[Secret]:
        value = QUOTED_OR_BARE.match(text, start)
        if value and is_value(name, separator, value, self._kind, is_source=is_source):
            start, end = _inner(value)
            if re.search(r"\]\s*=>\s*$", separator) and value[0][0] not in "\"'":
                end = max(end, printed.end()) if (printed := _PRINTED.match(text, start)) else end
            if start < end:
                yield Secret(start, end, name)

    def _said(self, text: str, source: Sequence[tuple[int, int]]) -> Iterator[Secret]:
        position = 0
        while match := _SAID.search(text, position):
            position = match.end("name")
            name = self._phrase(text, match.start(), match["name"])
            if name is None or any(start <= match.start() < end for start, end in source):
                continue
            if match["text"]:
                yield from _between_quotes(match, name)
                position = match.end()
                continue
            value = match["value"].rstrip(".,;:!?)]}\\")
            if match["quote"]:
                is_told = bool(value) and not is_prose(value)
            elif _CODES.search(name.lower()) and re.fullmatch("[0-9]{4,8}", value):
                is_told = True
            else:
                least = 4 if match["verb"] else 16 if name.lower() == "token" else 6
                is_told = len(value) >= least and looks_random(value, is_said=True)
            if is_told and not re.match(r"[:=]", text[match.end("value") :][:1]):
                yield Secret(match.start("value"), match.start("value") + len(value), name)
                position = match.end()
        for match in () if text.isascii() else _UNSPACED.finditer(text):
            if match["text"]:
                yield from _between_quotes(match, match["name"])
            elif not is_prose(match["value"]):
                yield Secret(*match.span("value"), match["name"])

    def _elements(self, text: str) -> Iterator[Secret]:
        for pattern in (_ELEMENT, _KEYED_ELEMENT):
            for match in pattern.finditer(text):
                if self._kind(match["name"]) == "secret":
                    group = "data" if match.groupdict().get("data") else "value"
                    value = match[group].rstrip()
                    if value and not is_prose(value):
                        start = match.start(group)
                        yield Secret(start, start + len(value), match["name"])

    def _tuples(self, text: str) -> Iterator[Secret]:
        for match in _ERLANG.finditer(text):
            if self._kind(match["name"]) != "secret" or is_prose(match["value"]):
                continue
            # {"password", "token"} may be a set of names.
            is_atom = match["open"] in (None, ":") or match["bytes"]
            if is_atom or looks_random(match["value"]):
                yield Secret(*match.span("value"), match["name"])

    def _blocks(self, text: str) -> Iterator[Secret]:
        if "\n" not in text:
            return
        for match in _BLOCK.finditer(text):
            if self._kind(match["name"]) != "secret":
                continue
            lines = match["block"] or match["items"]
            start = match.start("block") if match["block"] else match.start("items")
            for line in re.finditer(r"^[ \t]*(?:- )?(\S[^\r\n]*)", lines, re.MULTILINE):
                yield Secret(start + line.start(1), start + line.end(1), match["name"])

    def _whole(self, pattern: re.Pattern[str], text: str) -> Iterator[Secret]:
        for match in pattern.finditer(text):
            if self._kind(match["name"]) == "secret":
                yield Secret(*match.span("value"), match["name"])


def told_to_programs(text: str) -> Iterator[Secret]:
    """Secrets in command lines and SQL that have no name."""
    if "-" not in text and "dentified" not in text.lower():
        return
    for match in _LOGIN_FLAG.finditer(text):
        if not (match["user"].isdigit() and match["value"].isdigit()):  # docker run -u 1000:1000
            yield Secret(*match.span("value"), "user")
    for pattern in (_PROGRAM_FLAG, _IDENTIFIED):
        for match in pattern.finditer(text):
            yield Secret(*match.span("value"), "password")


def _between_quotes(match: re.Match[str], name: str) -> Iterator[Secret]:
    content = QUOTED.fullmatch(match["text"])
    if content and not is_prose(content[3]):
        start = match.start("text")
        yield Secret(start + content.start(3), start + content.end(3), name)


def _inner(value: re.Match[str]) -> tuple[int, int]:
    """Where the content of an assigned value stands: less its quotes and stray backslashes."""
    if match := QUOTED.fullmatch(value[0]):
        return value.start() + match.start(3), value.start() + match.end(3)
    return value.start(), value.start() + len(value[0].rstrip("\\"))
