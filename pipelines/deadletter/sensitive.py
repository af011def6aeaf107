"""What counts as a secret or as personal data: names of keys, and shapes of text.

The patterns are exact Python; `prefilters` are their loose counterparts for Rust: a text in which
a pattern masks something always contains them, most other texts do not. They know nothing of word
boundaries and checksums, and a false hit only costs time.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence

import polars as pl

__all__ = [
    "AUTHORIZATION",
    "BASE64_NOTE",
    "BASIC",
    "BEARER",
    "CARD",
    "COOKIE",
    "EMAIL",
    "JWT",
    "LABELLED_PHONE",
    "LOCAL_PHONE",
    "MARK",
    "NATS_TOKEN",
    "PHONE",
    "PRIVATE_KEY",
    "URL_LOGIN",
    "VENDOR_TOKEN",
    "assignment_pattern",
    "is_card",
    "is_code",
    "is_login",
    "is_phone",
    "key_test",
    "key_words",
    "prefilters",
    "unquoted",
]

MARK = r"\[redacted(?::[a-z0-9_]{1,40}(?::[0-9a-f]{12})?| [0-9]+ (?:bytes|characters))\]"
"""What a masked value looks like; it is never masked again."""

_SECRET_WORDS = (
    "[a-z]*passwords? passwd passphrases? pwd pgpassword [a-z]*secrets? token authtoken accesstoken "
    "refreshtoken idtoken apitoken bearertoken sessiontoken (?:access|auth|api|refresh|session|bearer)_tokens "
    "api_*keys? authorization credentials? cred creds private_*keys? cookies? session_*ids? access_*keys? "
    "secret_*keys? signing_*keys? encryption_*keys? shared_*keys? account_*keys? subscription_*keys? "
    "jwt nkey nkey_*seeds? cvv cvc otp"
).split()
# A secret's number, kind or date is not the secret.
_ABOUT = (
    "(?!_*(?:counts?|types?|limits?|length|expir[a-z]*|ttl|us(?:ed|age)|polic(?:y|ies))(?![a-z]))"
)
_HINT = (
    "passw|passphrase|pwd|secret|token|api[-_. ]*key|authorization|cred|private[-_. ]*key|cookie|"
    "session[-_. ]*id|access[-_. ]*key|signing[-_. ]*key|encryption[-_. ]*key|shared[-_. ]*key|"
    "account[-_. ]*key|subscription[-_. ]*key|jwt|nkey|cvv|cvc|otp"
)


def key_words(key: str) -> str:
    """`apiKey`, `API-Key`, `x.api key` → `api_key`, `api_key`, `x_api_key`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key)
    return re.sub(r"[-. ]", "_", split).lower()


def key_test(keys: Sequence[str], allow_keys: Sequence[str]) -> Callable[[str], bool]:
    """Tells a sensitive key. Whole words only: `secretary` and `tokenizer` are none."""
    extra = [re.escape(key_words(key)).replace("_", "_*") for key in keys]
    words = re.compile(
        rf"(?<![a-z])(?:{'|'.join([*_SECRET_WORDS, *extra])})(?![a-z]){_ABOUT}|^auth$"
    )
    allowed = frozenset(map(key_words, allow_keys))

    def is_sensitive(key: str) -> bool:
        name = key_words(key)
        return name not in allowed and words.search(name) is not None

    return is_sensitive


def is_phone(key: str) -> bool:
    """Whether a key names a phone number."""
    return _PHONE_KEY.search(key_words(key)) is not None


def _hint(extra_keys: Sequence[str]) -> str:
    extra = [re.escape(key_words(key)).replace("_", "[-_. ]*") for key in extra_keys]
    return "|".join([_HINT, *extra])


_QUOTED_VALUE = r"""\\+"(?:[^"\\\n]|\\(?!"))*\\+"|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|["'][^\n]*"""
_NO_SECRET = r"(?i:none|null|nil|true|false|undefined|str|string|bytes|int|any|secretstr|bearer|basic|token|digest|\*+|\.+|%s|\?)"
_BARE_VALUE = r"""[^\s"',;&(){}\[\]<>]+(?:\([^()\n]*\))?"""


def assignment_pattern(extra_keys: Sequence[str] = ()) -> re.Pattern[str]:
    """`password='x'`, `"token": "x"`, `?api_key=x`: groups key, sep and value.

    A mark is matched too (without groups), so that it is stepped over.
    """
    return re.compile(
        rf"{MARK}"
        rf"|(?P<key>(?<![A-Za-z0-9_.-])[A-Za-z0-9_.-]{{0,40}}?(?:{_hint(extra_keys)}|(?<![A-Za-z0-9_.-])auth)"
        r"[A-Za-z0-9_.-]{0,40})"
        r"(?P<sep>\\*[\"']?\]?\s*(?:=>|:=|=|:(?!//))\s*)"
        rf"(?P<value>[bruBRU]?(?:{_QUOTED_VALUE})"
        rf"|\[[^\[\]]*\][^\s\"',;&(){{}}\[\]<>]*|\{{[^{{}}]*\}}|\([^()]*\)|{_BARE_VALUE})",
        re.IGNORECASE | re.ASCII,
    )


AUTHORIZATION = re.compile(
    r"((?:proxy-?)?authorization\\*[\"']?\s*[:=]\s*\\*[\"']?)"
    r"(?:((?:digest|aws4-hmac-sha256|negotiate)\s+)([^\r\n]+)"
    r"|((?:bearer|basic|token|apikey|api-key)\s+)([^\s\"'\\,;]+))",
    re.IGNORECASE | re.ASCII,
)
COOKIE = re.compile(
    r"((?<![A-Za-z0-9_-])(?:set-)?cookie\s*:\s*)([^\r\n\"']*=[^\r\n\"']*)", re.IGNORECASE | re.ASCII
)
BEARER = re.compile(
    r"(\bbearer\s+)(?!(?:token|realm|scope|error|auth\w*|scheme|credential\w*|format)\b)"
    r"((?=[a-z]{0,64}[^a-z\s]|\S{20})[A-Za-z0-9._~+/=-]{6,})",
    re.ASCII | re.IGNORECASE,
)
BASIC = re.compile(r"(\bbasic\s+)([A-Za-z0-9+/]{6,}={0,2})", re.IGNORECASE | re.ASCII)
URL_LOGIN = re.compile(
    r"([a-z][a-z0-9+.-]{0,30}:\\?/\\?/)"
    r"([^\s/?#\"'<>@:\[\]\\]*:(?:[^\s/\"'<>\[\\][^\s/\"'<>]*|(?![0-9]{1,5}(?:[/?]|$))[^\s\"'<>\[][^\s\"'<>]*?))(?=@)",
    re.IGNORECASE | re.ASCII,
)
NATS_TOKEN = re.compile(r"((?:nats|tls):\\?/\\?/)([^\s/?#\"'<>@:\[\]]+)(?=@)", re.ASCII)
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----)[\s\S])*-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s\\,:-]*)"
)
JWT = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?")
VENDOR_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Z0-9])"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}"  # Slack
    r"|sk-[A-Za-z0-9_-]{16,}|[rsp]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{16,}"
    r"|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{16,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}"
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{30,}|do[opr]_v1_[a-f0-9]{40,}"
    r"|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{30,}|hv[sb]\.[A-Za-z0-9_-]{20,}|AGE-SECRET-KEY-1[A-Z0-9]{50,}"
    r"|S[UAOCNX][A-Z2-7]{56}(?![A-Z0-9]))"  # NATS nkey seeds
)
EMAIL = re.compile(
    r"(?<![\w.%+-])(?!git@)[\w.%+-]{1,64}@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,24}(?![\w-])"
)
CARD = re.compile(
    r"(?<![0-9A-Za-z.])(?<![0-9][ -])"
    r"(?:[2-6][0-9]{3}(?:[0-9]{9,15}|([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?)"
    r"|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})"
    r"(?![0-9A-Za-z_])(?!-[0-9])(?!\.[0-9])"
)
PHONE = re.compile(
    r"(?<![\w+.])\+[1-9](?:[ ()-]{0,2}[0-9]){7,14}(?![0-9A-Za-z_])(?!\.[0-9])"
    r"|(?<![\w.+-])(?<![0-9] )(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}-)[0-9]{3}-[0-9]{4}(?![\w-])(?!\.[0-9])",
    re.ASCII,
)
LABELLED_PHONE = re.compile(
    r"((?<![a-z])(?:tele)?(?:phone|mobile|msisdn|whatsapp)(?:[ _-]?(?:number|no))?\\*[\"']?\s*[:=]\s*\\*[\"']?)"
    r"(\+?\(?[0-9](?:[ ().-]{0,2}[0-9]){6,14})(?![0-9A-Za-z_])(?!\.[0-9])",
    re.IGNORECASE | re.ASCII,
)

LOCAL_PHONE = re.compile(r"\+?\(?[0-9](?:[ ().-]{0,2}[0-9]){6,14}")
_PHONE_KEY = re.compile(r"(?<![a-z])(?:tele)?(?:phone|mobile|msisdn|whatsapp)")
BASE64_NOTE = re.compile(r'\{"base64": "\[redacted [0-9]+ bytes\]"\}')

_COMMON = (
    r"eyJ[A-Za-z0-9_-]{5}|PRIVATE KEY|(?i:bearer|basic)[ \t\r\n\\]|nats:|tls:"
    r"|A[KSBC][IC]A[A-Z0-9]{16}|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|xapp-|sk-[A-Za-z0-9_-]{16}"
    r"|k_(?:live|test)_|whsec_|AIza|ya29\.|npm_|pypi-|SG\.|hf_|do[opr]_v1_|shp[acps][ats]_|hv[sb]\."
    r"|AGE-SECRET|S[UAOCNX][A-Z2-7]{56}"
)
_NUMBERS = (
    r"|(?:^|[^0-9.])[2-6][0-9]{3}(?:[0-9]{9}|[ -][0-9]{4}[ -][0-9]{4}|[ -][0-9]{6}[ -])"
    r"|\+[1-9][ ()0-9-]{7}|[2-9][0-9]{2}(?:\) ?|-)[0-9]{3}-[0-9]{4}"
    r"|(?i:phone|mobile|msisdn|whatsapp)[a-z _-]{0,8}[\\\"']*[ \t]*[:=][ \t\\\"']*[+(]{0,2}[0-9]"
)


def prefilters(keys: Sequence[str], patterns: Sequence[str]) -> dict[str, str | None]:
    """The Rust pattern that a cell must contain to be worth a look, for each kind of column.

    None where a pattern of the user's can not be looked for in raw text: it is anchored, or Rust
    does not know its syntax. Every cell then takes the exact path.
    """
    hint = _hint(keys)
    assigned = rf"(?i:(?:{hint})[a-z0-9_.-]{{0,40}}|auth)[\\\"'\]]*[ \t\r\n\f\x0b\x1c-\x1f]*(?:=|:)"
    login = r"[^ /]@|//[^ \n]*@"
    extra = "".join(f"|{pattern}" for pattern in patterns)
    if any(
        re.search(r"[$^]|\\[AZzB]|\(\?", pattern) or not _is_rust(pattern) for pattern in patterns
    ):
        return {"label": None, "text": None, "json": None}
    escaped = r"|\\\\" if patterns else ""
    return {
        "label": f"{_COMMON}|{assigned}|{login}{extra}",
        "text": rf"^[ \t\r\n]*[\[{{]|{_COMMON}|{assigned}|{login}{_NUMBERS}{extra}",
        "json": rf"{_COMMON}|(?i:{hint})|(?i:auth)[\\\"'\]]|@|\\u00{_NUMBERS}{extra}{escaped}",
    }


def _is_rust(pattern: str) -> bool:
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError:
        return False
    return True


def is_card(text: str) -> bool:
    """Luhn's check on the digits of `text`, in a length that cards have."""
    digits = [int(c) for c in text if c in "0123456789"]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_login(encoded: str) -> bool:
    """Whether base64 text says `user:password`."""
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        return ":" in decoded.decode()
    except (binascii.Error, UnicodeDecodeError):
        return False


def is_code(assignment: re.Match[str]) -> bool:
    """Whether what is assigned is no literal: a type, a call, a variable of the same name, a word."""
    key, separator, value = assignment.group("key", "sep", "value")
    if assignment.string[assignment.end() : assignment.end() + 1] in ("(", "["):
        return True  # token = get(f(x)), token: Optional[str]
    if value.endswith(")") and "(" in value[1:]:
        return not re.search("[\"']", value)
    if re.fullmatch(_NO_SECRET, value) or re.fullmatch(rf"(?:\w+\.)*{re.escape(key)}", value):
        return True
    is_prose = separator.rstrip() == ":" and separator != ":" and re.fullmatch("[a-z]+", value)
    return bool(is_prose) and not re.search("pass|pwd|secret|key", key, re.IGNORECASE)


def unquoted(value: str) -> tuple[str, str, str]:
    """Opening quote, content and closing quote (or stray backslashes) of an assigned value."""
    match = re.fullmatch(r"""([bruBRU]?\\*["'])(.*?)(\\*["']|)""", value, re.DOTALL)
    if match:
        return match[1], match[2], match[3]
    inner = value.rstrip("\\")
    return "", inner, value[len(inner) :]
