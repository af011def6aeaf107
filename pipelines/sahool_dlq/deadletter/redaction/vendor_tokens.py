"""Tokens of vendors, by the detectors of detect-secrets and by the usual forms."""

import importlib
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

__all__ = ["BOTS_HINT", "HOOKS_HINT", "MIXED_HINT", "RANDOM_HINT", "TOKENS_HINT", "tokens"]

_DETECTORS = {  # module of detect_secrets.plugins: its class, and one of what every match contains
    "aws": ("AWSKeyDetector", ("A3T", "ABIA", "ACCA", "AKIA", "ASIA")),
    "azure_storage_key": ("AzureStorageKeyDetector", ("AccountKey=",)),
    "discord": ("DiscordBotTokenDetector", (".",)),
    "github_token": ("GitHubTokenDetector", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    "gitlab_token": ("GitLabTokenDetector", ("t-", "gloas-", "GR1348941")),
    "mailchimp": ("MailchimpDetector", ("-us",)),
    "pypi_token": ("PypiTokenDetector", ("pypi-AgE",)),
    "sendgrid": ("SendGridDetector", ("SG.",)),
    "slack": ("SlackDetector", ("xox", "hooks.slack.com")),
    "square_oauth": ("SquareOAuthDetector", ("sq0",)),
    "stripe": ("StripeDetector", ("k_live_",)),
    "telegram_token": ("TelegramBotTokenDetector", (":",)),
    "twilio": ("TwilioKeyDetector", ("AC", "SK")),
}
_NEEDLES = sorted({needle for _, needles in _DETECTORS.values() for needle in needles}, key=len)
# Most vendors put a name before a long random part; ids, which are shorter or hexadecimal, stay.
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9_+/-])(?P<name>[A-Za-z][A-Za-z0-9]{1,11}(?:[_.-][A-Za-z0-9]{1,12}){0,3}?)[_.-]"
    r"(?P<body>[A-Za-z0-9_.~-]{28,1000})={0,2}(?![A-Za-z0-9])"
)
_BODY = re.compile(r"[A-Za-z0-9]{20,}")
_NO_TOKENS = re.compile(
    r"(?i)^(?:sha|md5|etag|hash|digest|req|trace|span|user|usr|org|file|img|image|node|index"
    r"|chunk|vendor|main"
    r"|blob|commit|build|doc|msg|evt|event|batch|job|run|order|inv|cus|pi|pm|ch|cs|sub|uuid|id"
    r"|ulid|ksuid)"
)
_HOOK = re.compile(
    r"https://[a-z0-9.-]{3,80}/(?:[a-z0-9_.-]{1,40}/){0,4}?(?:webhooks?(?:b2)?|services|hooks?"
    r"|workflows)/"
    r"([A-Za-z0-9_/@.-]{24,400})",
    re.IGNORECASE,
)
TOKENS_HINT = (
    r"A3T|AccountKey=|[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.|gl[a-z]{2,6}-|GR1348941"
    r"|[0-9a-z]-us[0-9]|(?:AC|SK)[0-9a-z]{16}|sq0|pypi-|SG\.|xox|hooks\.slack"
)
"""For Rust: the matches of the detectors."""
BOTS_HINT = r"[0-9]{8,10}:[A-Za-z0-9_-]{9}"
"""For Rust, after `BEGIN`: those of Telegram."""
HOOKS_HINT = r"(?:hooks?|services|workflows|webhook[sb2]*)/[A-Za-z0-9_/@.-]{24}"
"""For Rust, in any case: where an address may be a secret."""
RANDOM_HINT = r"[_.~-][A-Za-z0-9]{20}"
"""For Rust: where a long random part may be."""
MIXED_HINT = (
    r"[_.~-](?:[a-z]+(?:[A-Z][A-Za-z]*[0-9]|[0-9][0-9a-z]*[A-Z])"
    r"|[A-Z]+(?:[a-z][A-Za-z]*[0-9]|[0-9][0-9A-Z]*[a-z])"
    r"|[0-9]+(?:[a-z][0-9a-z]*[A-Z]|[A-Z][0-9A-Z]*[a-z]))"
)
"""For Rust: the same with fewer states: small and capital letters and digits, in any order."""


def tokens(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each token; they may overlap."""
    if len(text) < 24:
        return
    for needles, patterns in _detectors() if any(map(text.__contains__, _NEEDLES)) else ():
        if any(map(text.__contains__, needles)):
            for pattern in patterns:
                for match in pattern.finditer(text):
                    if _stands_alone(text, *match.span()):
                        is_part = match.lastindex == 1 and len(match[1]) >= 20
                        yield match.span(1 if is_part else 0)
    for match in _PREFIXED.finditer(text):
        if _is_random(match["name"], match["body"]):
            yield match.span()
    for match in _HOOK.finditer(text) if "://" in text else ():
        if re.search("[0-9]", match[1]) and re.search("[A-Za-z]", match[1]):
            yield match.span(1)


@cache
def _detectors() -> list[tuple[tuple[str, ...], tuple[Any, ...]]]:
    if importlib.util.find_spec("detect_secrets") is None:
        return []  # in a service, which has nats-py and pydantic alone
    loaded = []
    for module, (name, needles) in _DETECTORS.items():  # imported late: it brings requests
        detector = getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)
        loaded.append((needles, tuple(detector.denylist)))
    return loaded


def _stands_alone(text: str, start: int, end: int) -> bool:
    return not (
        re.match("[A-Za-z0-9]{2}", text[max(0, start - 1) : start + 1])
        or re.match("[A-Za-z0-9]{2}", text[end - 1 : end + 1])
    )


def _is_random(name: str, body: str) -> bool:
    """Whether one run of the body often alternates between small letters, capital letters and
    digits.
    """
    runs = _BODY.findall(body)
    longest = max(runs, key=len, default="")
    turns = len(re.findall("[a-zA-Z](?=[0-9])|[0-9](?=[a-zA-Z])", longest))
    return (
        len(longest) >= 20
        and sum(map(len, runs)) >= 28
        and turns >= 4
        and bool(re.search("[a-z]", longest) and re.search("[A-Z]", longest))
        and not _NO_TOKENS.match(name)
    )
