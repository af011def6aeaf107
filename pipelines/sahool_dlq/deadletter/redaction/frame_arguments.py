"""Arguments that the frames of PHP, Elixir, Erlang and Perl quote, of which no name tells more.

Any of them may be a secret, so what a call was given as text goes, from its first quote to its
last. Numbers and the kinds of objects stay, and so does a single path or class.
"""

import re
from collections.abc import Iterator
from itertools import zip_longest

__all__ = ["ARGUMENTS_HINT", "arguments"]

_CALLS = re.compile(
    # #1 /srv/auth.php(9): App\Auth->login('bob', 'hunter2')
    r"(?P<php>#[0-9]{1,5} (?:[^\n]{1,300}?\([0-9]{1,9}\)|\[internal function\]): [^\s(]{1,300}\()"
    r"|#[0-9]{1,5} \{main\}"
    # (shop 0.1.0) lib/shop/auth.ex:3: Shop.Auth.login("bob", "hunter2")
    r"|(?:\([a-z]\w{0,60} [0-9][\w.+-]{0,40}\) (?:[^\s:]{1,300}:[0-9]{1,9}: )?"
    r"|(?<![^\s\"])[^\s:()]{1,300}\.(?:exs?|erl|[hl]?eex):[0-9]{1,9}: )[A-Z:][^\s(]{0,300}\("
    r"|\bcalled as +[a-z][^\s(]{1,300}\("  # shop_auth:login("bob", "hunter2")
    # {shop_auth,login,["bob","hunter2"],[{file,"src/shop_auth.erl"},{line,3}]}
    r"|\{'?[a-zA-Z][\w.]{0,100}'?,'?[^\s,{}\[\]]{1,100}'?,(?P<erlang>\[)"
)
_GIVEN = "arguments were given to "  # Shop.Auth.login/2, which a list follows, one to a line
_ITEM = re.compile(r"(?m)^[ \t]*# [0-9]{1,2}[ \t]*\n[ \t]*([^\n]*)")
_PERL = re.compile(r"(?m)^[ \t]*[\w:]{1,200}\(([^\n]*)\) called at [^\n]{1,300} line [0-9]")
_KEPT = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.-]+)+(?:\.\.\.)?|\w+(?:\\+\w+)+(?:\.\.\.)?")
_LONGEST = 10_000  # signs of a call's arguments

ARGUMENTS_HINT = (
    r"[0-9]\): |internal function\]: |\.(?:exs?|erl|[hl]?eex):[0-9]|[0-9a-z]\) [:A-Z]"
    r"|called (?:as|at) |were given to|# [0-9]|[a-zA-Z0-9_'],\["
)
"""What a line with such arguments holds, for Rust."""


def arguments(text: str) -> Iterator[tuple[int, int]]:
    """Where the texts stand that calls were given."""
    if "'" not in text and '"' not in text:
        return
    calls = list(_CALLS.finditer(text))
    for call, following in zip_longest(calls, calls[1:]):
        if not call[0].endswith(("(", "[")):
            continue
        end = min(following.start() if following else len(text), call.end() + _LONGEST)
        line = text.find("\n", call.end(), end)
        end = line if line >= 0 else end
        if call["erlang"] and (end := text.find("],[", call.end(), end)) < 0:
            continue
        yield from _quoted(text, call.end(), end, "'" if call["php"] else "'\"")
    if _GIVEN in text:
        for item in _ITEM.finditer(text):
            yield from _quoted(text, *item.span(1), "'\"")
    if ") called at " in text:
        for call in _PERL.finditer(text):
            yield from _quoted(text, *call.span(1), "'\"")


def _quoted(text: str, start: int, end: int, quotes: str) -> Iterator[tuple[int, int]]:
    """From after the first quote to before the last, less the backslashes that escape it."""
    first = min((place for q in quotes if (place := text.find(q, start, end)) >= 0), default=-1)
    last = max(text.rfind(q, start, end) for q in quotes)
    if first < 0 or last <= first + 1:
        return
    inner = text[first + 1 : last].rstrip("\\")
    if inner and not _KEPT.fullmatch(inner):
        yield first + 1, first + 1 + len(inner)
