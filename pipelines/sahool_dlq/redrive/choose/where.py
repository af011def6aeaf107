"""A user's condition over documented columns, turned into SQL with parameters.

The language is a small part of SQL: comparisons, LIKE, ILIKE, IN, IS NULL, AND, OR, NOT and
parentheses. Names are looked up in `COLUMNS`, and values become parameters: no text of the user
reaches the database as SQL, so nothing must be escaped and nothing can be injected.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

from sahool_dlq.errors import QueryError

__all__ = ["COLUMNS", "Column", "compile_where"]

Kind = Literal["text", "number", "time"]

_MOST_CHARACTERS = 2_000
_MOST_NESTING = 30


@dataclass(frozen=True, slots=True)
class Column:
    """One name that a condition may use."""

    sql: str  # over `failed_events f`
    kind: Kind
    what: str


COLUMNS: dict[str, Column] = {
    "service": Column("service(f)", "text", "the service that failed"),
    "source_service": Column("f.source_service", "text", "the service that published the event"),
    "consumer_name": Column("f.consumer_name", "text", "the durable consumer that failed"),
    "consumer_version": Column("f.consumer_version", "text", "the version of it that failed"),
    "handler": Column("f.handler", "text", "the function that failed"),
    "event_id": Column("f.event_id", "text", "the event's id, from its producer"),
    "event_type": Column("f.event_type", "text", "last token of the subject"),
    "subject": Column("f.original_subject", "text", "the event's subject"),
    "tenant_id": Column("f.tenant_id", "text", "tenant"),
    "field_id": Column("f.field_id", "text", "field"),
    "farmer_id": Column("f.farmer_id", "text", "farmer"),
    "error_type": Column("f.error_type", "text", "class name of the exception"),
    "error_message": Column("f.error_message", "text", "text of the exception, redacted"),
    "dlq_reason": Column("f.dlq_reason", "text", "why the consumer gave up"),
    "group_id": Column("f.group_id", "text", "failure group"),
    "parent_id": Column("f.parent_id", "text", "the coarser group"),
    "cause_id": Column("f.cause_id", "text", "what a library raised, in whichever group"),
    "status": Column("f.status", "text", "pending, retried or parked"),
    "retry_count": Column("f.retry_count", "number", "retries inside the consumer"),
    "redrive_count": Column("f.redrive_count", "number", "redrives without success"),
    "opening": Column("f.opening", "number", "1; more if it was closed and failed again"),
    "first_attempt_at": Column("f.first_attempt_at", "time", "first failed call"),
    "dlq_timestamp": Column("f.dlq_timestamp", "time", "when the consumer gave up"),
}
"""The names in conditions, besides `data.…` and `headers.…`."""

_DATA, _HEADERS = "f.original_data", "f.original_headers"
# A header has one value, or an array of them; its name is found whatever its case.
_HEADER_VALUES = (
    f"jsonb_each(CASE jsonb_typeof({_HEADERS}) WHEN 'object' THEN {_HEADERS} END) h,"
    " jsonb_path_query(h.value, '$[*]') v WHERE lower(h.key) = lower(%s)"
)

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^']|'')*')
    | (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
    | (?P<name>[A-Za-z_]\w*(?:\.(?:[\w-]+|"[^"]+"))*)
    | (?P<sign><=|>=|<>|!=|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE | re.ASCII,
)
_WORDS = {"and", "or", "not", "in", "is", "null", "like", "ilike", "true", "false"}
_SIGNS = {"=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def compile_where(text: str, columns: Mapping[str, Column] = COLUMNS) -> tuple[str, list[Any]]:
    """SQL over `failed_events f` with `%s` for each of the returned values.

    `columns` are the names that it may use, besides `data.…` and `headers.…`.

    Raises QueryError, which says where the error is and what is expected.
    """
    if len(text) > _MOST_CHARACTERS:
        raise QueryError(
            f"A condition may have {_MOST_CHARACTERS:,} characters, not {len(text):,}."
        )
    parser = _Parser(text, columns)
    sql = parser.either(0)
    parser.end()
    return sql, parser.values


class _Parser:
    """Recursive descent; each method reads its part and returns its SQL."""

    def __init__(self, text: str, columns: Mapping[str, Column]) -> None:
        self._text = text
        self._columns = columns
        self._tokens = list(self._read())
        self._at = 0
        self.values: list[Any] = []

    def either(self, depth: int) -> str:
        return self._chain("or", " OR ", lambda: self._both(depth))

    def end(self) -> None:
        if self._at < len(self._tokens):
            self._refuse("AND, OR or the end")

    def _both(self, depth: int) -> str:
        return self._chain("and", " AND ", lambda: self._term(depth))

    def _chain(self, word: str, glue: str, part: Callable[[], str]) -> str:
        parts = [part()]
        while self._take("word", word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else f"({glue.join(parts)})"

    def _term(self, depth: int) -> str:
        if depth > _MOST_NESTING:
            raise QueryError(f"A condition may be nested {_MOST_NESTING} deep, not deeper.")
        if self._take("word", "not"):
            return f"(NOT {self._term(depth + 1)})"
        if self._take("sign", "("):
            inner = self.either(depth + 1)
            self._take("sign", ")") or self._refuse("a closing parenthesis")
            return inner
        name = self._take("name")
        if name is None:
            self._refuse("a column, NOT or a parenthesis")
        return self._comparison(*self._column(name))

    def _comparison(self, sql: str, kind: Kind | None, path: list[str]) -> str:
        """`kind` is None for a payload; `path` is the path to a value in it, or in the headers."""
        if self._take("word", "is"):
            is_not = self._take("word", "not") is not None
            self._take("word", "null") or self._refuse("NULL")
            return self._is_null(sql, path, is_not=is_not)
        negation = "NOT " if self._take("word", "not") else ""
        for word in ("like", "ilike"):
            if self._take("word", word):
                if kind not in ("text", None):
                    self._refuse(f"no {word.upper()}, which is for texts")
                pattern = self._literal("text")
                return self._holds(sql, path, f"{negation}{word.upper()}", pattern)
        if self._take("word", "in"):
            return f"({negation}({self._one_of(sql, kind, path)}))"
        sign = None if negation else self._take("sign")
        if sign not in _SIGNS:
            self._refuse("=, <>, <, <=, >, >=, LIKE, ILIKE, IN or IS NULL")
        return self._compared(sql, kind, path, _SIGNS[sign])

    def _one_of(self, sql: str, kind: Kind | None, path: list[str]) -> str:
        self._take("sign", "(") or self._refuse("a list in parentheses")
        parts = [self._compared(sql, kind, path, "=")]
        while self._take("sign", ","):
            parts.append(self._compared(sql, kind, path, "="))
        self._take("sign", ")") or self._refuse("a comma or a closing parenthesis")
        return " OR ".join(parts)

    def _compared(self, sql: str, kind: Kind | None, path: list[str], sign: str) -> str:
        value = self._literal(kind)
        if kind is not None or isinstance(value, str):
            return self._holds(sql, path, sign, value)
        # JSON also compares a number with a text, which is never intended.
        self.values += [path, "boolean" if isinstance(value, bool) else "number", path, value]
        of_value = "to_jsonb(%s::boolean)" if isinstance(value, bool) else "to_jsonb(%s::numeric)"
        return f"(jsonb_typeof({sql} #> %s) = %s AND {sql} #> %s {sign} {of_value})"

    def _holds(self, sql: str, path: list[str], sign: str, value: Any) -> str:
        """A comparison of a text; for a header: whether any value matches, or none."""
        if sql != _HEADERS:
            left = self._as_text(sql, path)
            self.values.append(value)
            return f"{left} {sign} %s"
        self.values += [value, ".".join(path)]
        positive = "=" if sign == "<>" else sign.removeprefix("NOT ")
        held = f"(SELECT bool_or(v #>> '{{}}' {positive} %s) FROM {_HEADER_VALUES})"  # noqa: S608  (our own names, bound values)
        return held if positive == sign else f"(NOT {held})"

    def _is_null(self, sql: str, path: list[str], *, is_not: bool) -> str:
        if sql == _HEADERS:
            self.values.append(".".join(path))
            return f"{'' if is_not else 'NOT '}EXISTS (SELECT FROM {_HEADER_VALUES})"
        return f"{self._as_text(sql, path)} IS {'NOT ' if is_not else ''}NULL"

    def _as_text(self, sql: str, path: list[str]) -> str:
        if not path:
            return sql
        self.values.append(path)
        return f"({sql} #>> %s)"

    def _column(self, name: str) -> tuple[str, Kind | None, list[str]]:
        head, _, rest = name.partition(".")
        if head.lower() in ("data", "headers") and rest:
            path = [part.strip('"') for part in re.findall(r'"[^"]+"|[^.]+', rest)]
            return (_HEADERS, "text", path) if head.lower() == "headers" else (_DATA, None, path)
        column = self._columns.get(name.lower())
        if column is None:
            raise QueryError(
                f"There is no column {name[:60]!r}: use {', '.join(self._columns)}, data.… for the"
                " event's payload, or headers.… for its headers."
            )
        return column.sql, column.kind, []

    def _literal(self, kind: Kind | None) -> Any:
        text = self._take("text")
        if text is not None:
            value = text[1:-1].replace("''", "'")
            if kind == "number":
                self._refuse("a number", back=1)
            return self._time(value) if kind == "time" else value
        number = self._take("number")
        if number is not None and kind in ("number", None):
            return float(number) if "." in number else int(number)
        if number is None and kind is None:
            for word in ("true", "false"):
                if self._take("word", word):
                    return word == "true"
        wanted = {"number": "a number", "time": "a time in quotes", "text": "a text in 'quotes'"}
        return self._refuse(
            wanted.get(kind or "", "a text in 'quotes', a number, TRUE or FALSE"),
            back=0 if number is None else 1,
        )

    def _time(self, text: str) -> datetime:
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            self._refuse("a time such as '2026-03-01T12:00:00Z'", back=1)
        return value if value.tzinfo else value.replace(tzinfo=UTC)

    def _take(self, kind: str, value: str | None = None) -> str | None:
        """The next token, consumed, if it is of this kind (and value)."""
        if self._at >= len(self._tokens):
            return None
        found_kind, found, _ = self._tokens[self._at]
        if found_kind != kind or (value is not None and found != value):
            return None
        self._at += 1
        return found

    def _read(self) -> "list[tuple[str, str, int]]":
        tokens: list[tuple[str, str, int]] = []
        position, end = 0, len(self._text.rstrip())
        while position < end:
            match = _TOKEN.match(self._text, position)
            if match is None or match.lastgroup is None:
                raise QueryError(f"The condition is not valid at {self._text[position:][:40]!r}.")
            kind, value = match.lastgroup, match[match.lastgroup]
            if kind == "name" and value.lower() in _WORDS:
                kind, value = "word", value.lower()
            tokens.append((kind, value, match.start(match.lastgroup)))
            position = match.end()
        return tokens

    def _refuse(self, wanted: str, back: int = 0) -> NoReturn:
        at = self._at - back
        found = (
            repr(self._text[self._tokens[at][2] :][:40]) if at < len(self._tokens) else "the end"
        )
        raise QueryError(f"The condition needs {wanted} instead of {found}.")
