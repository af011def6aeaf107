"""Shapes of secrets and personal data in text.

The patterns are exact Python; `prefilters` are their loose counterparts for Rust: a text in which
a pattern masks something always contains them, most other texts do not. They know nothing of word
boundaries and checksums, and a false hit only costs time.
"""

import base64
import binascii
import re
from collections.abc import Sequence

from pipelines.deadletter.patterns import without_anchors
from pipelines.deadletter.secret_keys import name_hint

__all__ = [
    "AUTHORIZATION",
    "BASIC",
    "BEARER",
    "CARD",
    "COOKIE",
    "DIGITS",
    "EMAIL",
    "JWT",
    "LABELLED_PHONE",
    "LOCAL_PHONE",
    "LOGIN",
    "MARK",
    "PHONE",
    "PRIVATE_KEY",
    "SHORTEST",
    "VENDOR_NEEDLES",
    "VENDOR_TOKEN",
    "is_card",
    "is_login",
    "prefilters",
]

MARK = r"\[redacted(?::[a-z0-9_]{1,40}(?::[0-9a-f]{12})?| [0-9]+ (?:bytes|characters))\]"
"""What a masked value looks like; it is never masked again."""
SHORTEST = 9
"""Characters of the shortest match without any of `=`, `:`, `@`: `+12345678`."""
DIGITS = re.compile(r"[0-9][0-9 ().-]{6}")
"""What every card and phone number contains."""

# In the patterns that keep something, the last group is what is masked.
AUTHORIZATION = re.compile(
    r"authorization\\*[\"']?[ \t]*[:=][ \t]*\\*[\"']?"
    r"(?:(?:digest|aws4-hmac-sha256|negotiate)[ \t]+([^\r\n]+)"
    r"|(?:bearer|basic|token|apikey|api-key)[ \t]+([^\s\"'\\,;]+))",
    re.IGNORECASE | re.ASCII,
)
COOKIE = re.compile(
    r"(?<![A-Za-z0-9_])(?:set-)?cookie[ \t]*:[ \t]*([^\r\n\"'=]{0,99}=[^\r\n\"']*)",
    re.IGNORECASE | re.ASCII,
)
BEARER = re.compile(
    r"\bbearer[ \t]+(?!(?:token|realm|scope|error|auth\w*|scheme|credential\w*|format)\b)"
    r"((?=[a-z]{0,64}[^a-z\s]|\S{20})[A-Za-z0-9._~+/=-]{6,})",
    re.IGNORECASE | re.ASCII,
)
BASIC = re.compile(r"\bbasic[ \t]+([A-Za-z0-9+/]{6,}={0,2})", re.IGNORECASE | re.ASCII)
LOGIN = re.compile(  # a password may hold any sign but a blank; NATS knows tokens without a user
    r"[a-z][a-z0-9+.-]{0,30}:\\?/\\?/"
    r"([^\s/?#\"'<>@:\[\]\\]*:"
    r"(?:[^\s/\"'<>\[\\]+|(?![0-9]{1,5}(?:[/?]|$))[^\s\"'<>\[][^\s\"'<>]*?))(?=@)"
    r"|(?:nats|tls)://([^\s/?#\"'<>@:\[\]]+)(?=@)",
    re.IGNORECASE | re.ASCII,
)
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----)[\s\S])*-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"|[A-Za-z0-9+/=\s\\,:-]*)"  # cut short
)
JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?")
VENDOR_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Z0-9])"  # AWS
    r"|gh[opsru]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}"  # Slack
    r"|sk-[A-Za-z0-9_-]{16,}|[rsp]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{16,}"
    r"|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{16,}"  # Google
    r"|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|hf_[A-Za-z0-9]{30,}"
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|do[opr]_v1_[a-f0-9]{40,}"
    r"|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{30,}|hv[bs]\.[A-Za-z0-9_-]{20,}|AGE-SECRET-KEY-1[A-Z0-9]{50,}"
    r"|S[ACNOUX][A-Z2-7]{56}(?![A-Z0-9]))"  # seeds of NATS nkeys
)
VENDOR_NEEDLES = (
    *("AKIA", "ASIA", "ABIA", "ACCA", "ghp_", "gho_", "ghs_", "ghr_", "ghu_", "github_pat_"),
    *("glpat-", "xox", "xapp-", "sk-", "k_live_", "k_test_", "whsec_", "AIza", "ya29.", "npm_"),
    *("pypi-", "hf_", "SG.", "_v1_", "shp", "hvb.", "hvs.", "AGE-SECRET"),
    *("SA", "SC", "SN", "SO", "SU", "SX"),
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
    r"|(?<![\w.+-])(?<![0-9] )(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}-)[0-9]{3}-[0-9]{4}"
    r"(?![\w-])(?!\.[0-9])",
    re.ASCII,
)
LOCAL_PHONE = re.compile(r"\+?\(?[0-9](?:[ ().-]{0,2}[0-9]){6,14}")
"""A number as people write it: only where a name says that it is a phone's."""
LABELLED_PHONE = re.compile(
    r"(?<![a-z])(?:tele)?(?:phone|mobile|msisdn|whatsapp)(?:[ _-]?(?:number|no))?"
    rf"\\*[\"']?[ \t]*[:=][ \t]*\\*[\"']?({LOCAL_PHONE.pattern})(?![0-9A-Za-z_])(?!\.[0-9])",
    re.IGNORECASE | re.ASCII,
)

_TOKENS = (
    r"eyJ[A-Za-z0-9_-]{5}|PRIVATE KEY|(?i:bearer|basic)[ \t\\]"
    r"|A[KSBC][IC]A[A-Z0-9]{16}|gh[opsru]_|github_pat_|glpat-|xox[abeoprs]-|xapp-"
    r"|sk-[A-Za-z0-9_-]{16}|k_(?:live|test)_|whsec_|AIza|ya29\.|npm_|pypi-|hf_|SG\.|do[opr]_v1_"
    r"|shp(?:at|ca|pa|ss)_|hv[bs]\.|AGE-SECRET|S[ACNOUX][A-Z2-7]{56}"
)
_NUMBERS = (
    r"|(?:^|[^0-9.])[2-6][0-9]{3}(?:[0-9]{9}|[ -][0-9]{4}[ -][0-9]{4}|[ -][0-9]{6}[ -])"
    r"|\+[1-9][ ()0-9-]{7}|[2-9][0-9]{2}(?:\) ?|-)[0-9]{3}-[0-9]{4}"
    r"|(?i:phone|mobile|msisdn|whatsapp)[A-Za-z0-9_. -]{0,40}[\\\"']*[ \t\r\n]*[:=]"
    r"(?:[ \t\r\n\\\"'+(]*[0-9]|[ \t\r\n]*\[)"  # of an array, any may be one
)


def prefilters(keys: Sequence[str], patterns: Sequence[str]) -> dict[str, str]:
    """The Rust pattern that a cell must contain to be worth a look, for each kind of column."""
    hint = name_hint(keys)
    assigned = rf"(?i:(?:{hint})[a-z0-9_.-]{{0,40}}|auth)[\\\"'\]]*[ \t]*[:=]"
    login = r"[^ /]@|//[^ \n]*@"
    # Where a text begins and ends, or what an escape stands for, raw JSON does not tell.
    extra = "".join(f"|{without_anchors(pattern)}" for pattern in patterns)
    escaped = r"|\\" if patterns else r"|\\u00"
    return {
        "label": f"{_TOKENS}|{assigned}|{login}{extra}",
        "text": rf"^[ \t\r\n]*[\[{{]|{_TOKENS}|{assigned}|{login}{_NUMBERS}{extra}",
        "json": rf"{_TOKENS}|(?i:{hint})|(?i:auth)[\\\"'\]]|@{_NUMBERS}{extra}{escaped}",
    }


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
