"""`dlq sql` without a statement at a terminal: a prompt with history and completion."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from sahool_dlq.cli.output import console, errors, safe
from sahool_dlq.errors import DLQError
from sahool_dlq.jobs.lake_views import answer
from sahool_dlq.settings import Settings

_COLUMNS = """
SELECT table_name, column_name FROM duckdb_columns()
WHERE NOT internal AND NOT contains(table_name, ' ') ORDER BY ALL
"""
_WORDS = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "HAVING", "JOIN", "LEFT JOIN",
    "USING", "WITH", "AS", "ON", "AND", "OR", "NOT", "IN", "IS NULL", "LIKE", "BETWEEN", "DISTINCT",
    "COUNT(*)", "CASE WHEN", "DESC", "DESCRIBE", "SUMMARIZE", "PIVOT", "SHOW TABLES", "EXPLAIN",
    "INTERVAL", "VALUES",
)  # fmt: skip
_QUIT = (".quit", ".exit", "exit", "quit", "\\q")
_ALONE = (*_QUIT, "help")
_HELP = """A statement ends with ;  Tab completes, ↑ goes back, Ctrl-C clears, Ctrl-D ends.
  .tables [NAME]  tables, or the columns of one
  .x              one block per row, or a table again
  .help  .quit"""


class NameCompleter(Completer):
    """Tables after FROM, JOIN and the like; elsewhere columns of the tables that are named, too."""

    def __init__(self, columns: Iterable[tuple[str, str]]) -> None:
        self._columns: dict[str, list[str]] = {}
        for table, column in columns:
            self._columns.setdefault(table, []).append(column)

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002  (signature of prompt_toolkit)
    ) -> Iterator[Completion]:
        """The names that begin with the word before the cursor."""
        word = document.get_word_before_cursor()
        word = word if word.replace("_", "").isalnum() or word.startswith(".") else ""
        for name, kind in self._candidates(document, word):
            if name.lower().startswith(word.lower()) and (word or kind == "table"):
                yield Completion(name, start_position=-len(word), display_meta=kind)

    def _candidates(self, document: Document, word: str) -> list[tuple[str, str]]:
        before = document.text_before_cursor.removesuffix(word).split()
        tables = [(table, "table") for table in self._columns]
        if before and before[-1].upper() in (
            "FROM", "JOIN", "DESCRIBE", "SUMMARIZE", "PIVOT", "TABLE", ".TABLES",
        ):  # fmt: skip
            return tables
        named = set(document.text.replace(",", " ").replace(";", " ").split()) & set(self._columns)
        columns = dict.fromkeys(
            column for table in sorted(named or self._columns) for column in self._columns[table]
        )
        words = [(each, "") for each in _WORDS]
        return [(column, "column") for column in columns] + tables + words


def prompt(settings: Settings, form: str, seconds: float, limit: int, is_expanded: bool) -> None:
    """Ask for statements until Ctrl-D; an error is printed, and the next one is asked for."""
    from sahool_dlq.cli.sql import show

    tables, columns = (
        [str(name) for name in column.to_pylist()] for column in answer(settings, _COLUMNS).columns
    )
    completer = NameCompleter(zip(tables, columns, strict=True))
    session: PromptSession[str] = PromptSession(
        history=_history(settings.home),
        completer=completer,
        complete_while_typing=False,  # Tab asks
        lexer=PygmentsLexer(SqlLexer),
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation="   ...> ",
    )
    errors.print(
        f"[dim]The lake at {safe(settings.lake)}, read only. .help lists the commands.[/dim]"
    )
    while True:
        try:
            text = session.prompt("dlq sql> ").strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if text in _QUIT:
            return
        if text == ".x":
            is_expanded = not is_expanded
            continue
        if text in (".help", "help"):
            console.print(_HELP, markup=False)
            continue
        if text.startswith((".tables", "\\d")):
            _, _, name = text.partition(" ")
            text = f"DESCRIBE {name}" if name.strip() else "SHOW TABLES"
        if text.strip(";").strip():
            try:
                show(settings, text, form, seconds, limit, is_expanded)
            except DLQError as error:
                errors.print(f"[red]{safe(error)}[/red]", soft_wrap=True)
            except KeyboardInterrupt:
                errors.print("[yellow]Interrupted.[/yellow]")


def _keys() -> KeyBindings:
    """Enter ends a statement that ends with a semicolon, and a command; else it begins a line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        text = event.current_buffer.text.strip()
        if not text or text.endswith(";") or text.startswith((".", "\\")) or text in _ALONE:
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    return keys


def _history(home: Path) -> History:
    """What was asked before, in a file of DLQ_HOME that only its owner reads."""
    file = home / "sql_history"
    with contextlib.suppress(OSError):
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
        return FileHistory(str(file))
    return InMemoryHistory()
