"""Shapes of secrets in text: tokens, logins, signatures, hashed passwords."""

import re

__all__ = [
    "AUTHORIZATION",
    "BASIC",
    "BEARER",
    "BEGIN",
    "COOKIE",
    "EMAIL",
    "HASHED",
    "JWT",
    "LOGIN",
    "LONG_RUN",
    "MARK",
    "ORACLE",
    "PRIVATE_KEY",
    "SHORTEST",
    "SIGNED",
    "SOLID_NEEDLES",
    "VENDOR_NEEDLES",
    "VENDOR_TOKEN",
]

BEGIN = r"(?:^|[\x00-\-/:-@\[-`{-\x7f]|\\(?:[a-z]|u[0-9a-f]{4}))"
"""For Rust: what stands before a number or a token, in raw JSON too, where `\\n` may."""
MARK = r"\[redacted(?::[a-z0-9_]{1,40}(?::[0-9a-f]{12})?| [0-9]+ (?:bytes|characters))\]"
"""What a masked value looks like; it is never masked again."""
SHORTEST = 8
"""Characters of the shortest match without any of `=`, `:`, `@`: `pin 1234`."""

LONG_RUN = re.compile(r"[A-Za-z0-9_.+/=~%@-]{14}")
"""What every token, signature, hashed or encoded secret holds: so many signs without a blank."""

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
    # hexadecimal or in capitals, which only the vendor's name tells from an id
    r"|key-[0-9a-f]{32}|dapi[0-9a-f]{32}|NR[A-Z]{2}-[A-Z0-9]{27}|sq0[a-z]{3}-[A-Za-z0-9_-]{22,}"
    r"|(?:sbp|bkua|rubygems|lin_oauth|sntry[a-z]|cio|tfp|figd|circle|pat|akp)_[0-9a-f]{32,}"
    r"|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|xkeysib-[0-9a-f]{64}-[A-Za-z0-9]{16}|AKCp[A-Za-z0-9]{40,}"
    r"|LTAI[A-Za-z0-9]{16,24}|AKID[A-Za-z0-9]{32}|EAA[A-Z][A-Za-z0-9_-]{50,}"
    r"|sl\.[A-Za-z0-9_-]{100,}"
    r"|S[ACNOUX][A-Z2-7]{56}(?![A-Z0-9]))"  # seeds of NATS nkeys
)
SOLID_NEEDLES = (
    *("AKIA", "ASIA", "ABIA", "ACCA", "AIza", "dapi", "AKCp", "LTAI", "AKID", "EAA"),
    *("SA", "SC", "SN", "SO", "SU", "SX"),
)
"""One of them is in every token of `VENDOR_TOKEN` that has letters and digits alone."""
VENDOR_NEEDLES = (
    *SOLID_NEEDLES,
    *("ghp_", "gho_", "ghs_", "ghr_", "ghu_", "github_pat_", "glpat-", "xox", "xapp-", "sk-"),
    *("k_live_", "k_test_", "whsec_", "ya29.", "npm_", "pypi-", "hf_", "SG.", "_v1_", "shp"),
    *("hvb.", "hvs.", "AGE-SECRET", "key-", "NR", "sq0", "sbp_", "bkua_", "rubygems_"),
    *("lin_oauth_", "sntry", "cio_", "tfp_", "figd_", "circle_", "pat_", "akp_", "PMAK-"),
    *("xkeysib-", "sl."),
)
EMAIL = re.compile(
    r"(?<![\w.%+-])(?!git@)[\w.%+-]{1,64}@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,24}(?![\w-])"
)
SIGNED = re.compile(  # what makes a signed URL work, and what signs a request
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
HASHED = re.compile(  # a password, hashed to be kept
    r"\$(?:2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}|argon2(?:id|i|d)\$[A-Za-z0-9$=,+/.]{20,300}"
    r"|(?:1|5|6|y|7|apr1|scrypt|pbkdf2[a-z0-9-]{0,10})\$[A-Za-z0-9$=,./+-]{20,300})"
    r"|\bpbkdf2_sha[0-9]{1,3}\$[A-Za-z0-9$=+/]{20,200}|\{S?SHA[0-9]{0,3}\}[A-Za-z0-9+/=]{20,200}"
)
