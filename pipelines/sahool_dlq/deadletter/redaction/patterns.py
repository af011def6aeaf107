"""Shapes of secrets in text: tokens, logins, signatures, hashed passwords."""

import re

__all__ = [
    "AUTHORIZATION",
    "BASIC",
    "BEARER",
    "BEGIN",
    "COOKIE",
    "EMAIL",
    "GO_LOGIN",
    "HASHED",
    "JWT",
    "LOGIN",
    "LONG_RUN",
    "MARK",
    "ORACLE",
    "PRIVATE_KEY",
    "SHORTEST",
    "SIGNED",
]

BEGIN = r"(?:^|[\x00-\-/:-@\[-`{-\x7f]|\\(?:[a-z]|u[0-9a-f]{4}))"
"""For Rust: what stands before a number or a token, in raw JSON too, where `\\n` may."""
MARK = r"\[redacted(?::[a-z0-9_]{1,40}(?::[0-9a-f]{12})?| [0-9]+ (?:bytes|characters))\]"
"""The form of a masked value; it is never masked again."""
SHORTEST = 8
"""Characters of the shortest match without any of `=`, `:`, `@`: `pin 1234`."""

LONG_RUN = re.compile(r"[A-Za-z0-9_.+/=~%@-]{14}")
"""Every token, signature, hashed or encoded secret contains this many characters without a space.
"""

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
GO_LOGIN = re.compile(  # app:hunter2@tcp(db:3306)/shop, as Go's driver of MySQL takes it
    r"(?<![^\s\"'`=,;(<\[{])(?!\[?redacted:)[^\s\"'`:/@(=,;<>]{0,64}:[^\s\"'`]{1,200}?"
    r"(?=@[a-z][\w.+-]{0,30}\([^()\s]{0,200}\)(?:/|$|[\s\"'`]))",
    re.IGNORECASE | re.ASCII,
)
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----)[\s\S])*-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"|[A-Za-z0-9+/=\s\\,:-]*)"  # cut short
)
JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?")
EMAIL = re.compile(
    r"(?<![\w.%+-])(?!git@)[\w.%+-]{1,64}@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,24}(?![\w-])"
)
SIGNED = re.compile(  # signatures of URLs and requests
    r"(?<![A-Za-z0-9])(?:x-(?:amz|goog|oss|cos|ms|hub)-)?(?:signature(?:-256)?|sig|sign|hmac"
    r"|credential"
    r"|security-token|key-pair-id|policy|awsaccesskeyid|ossaccesskeyid|googleaccessid)"
    r"\\*[\"']?[ \t]*(?:[:=]|%3d)[ \t]*\\*[\"']?(?:sha256=|sha1=|v1=)?"
    r"((?=[A-Za-z+/=_%.~@-]{0,200}[0-9])[A-Za-z0-9+/=_%.~@-]{16,})"
    r"|[?&](?:code|key|hdnea|hdnts|h|auth_key|st|e?hash|verify"
    r"|ticket)=((?=[A-Za-z_%.~-]{0,60}[0-9])[A-Za-z0-9_%.~/+-]{20,})",
    re.IGNORECASE | re.ASCII,
)
ORACLE = re.compile(
    r"(?:jdbc:oracle:[a-z0-9]{1,8}:(?=[^@\s]{3})"
    r"|\b(?:sqlplus|sqlldr|expdp|impdp|rman|exp|imp)\b[^\n@/]{0,80}[ \t\"'=])"
    r"([A-Za-z][\w$#.-]{0,60}/[^\s@]{1,100})(?=@|\s|$)"
    r"|(?<![\w/.:@-])([A-Za-z][\w$#]{0,30}/[^\s/@\"']{1,64})(?=@(?!sha[0-9])(?://)?[\w.-]{1,80}"
    r"(?::[0-9]{2,5})?[/:][\w.$-]+"
    r"|@\(DESCRIPTION)",
    re.IGNORECASE | re.ASCII,
)
HASHED = re.compile(  # a hashed password
    r"\$(?:2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}|argon2(?:id|i|d)\$[A-Za-z0-9$=,+/.]{20,300}"
    r"|(?:1|5|6|y|7|apr1|scrypt|pbkdf2[a-z0-9-]{0,10})\$[A-Za-z0-9$=,./+-]{20,300})"
    r"|\bpbkdf2_sha[0-9]{1,3}\$[A-Za-z0-9$=+/]{20,200}|\{S?SHA[0-9]{0,3}\}[A-Za-z0-9+/=]{20,200}"
)
