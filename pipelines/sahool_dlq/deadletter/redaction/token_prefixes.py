"""Tokens that begin with their vendor's prefix, defined once: the search patterns are made from
this table.
"""

import re
from typing import NamedTuple

from sahool_dlq.deadletter.redaction.tries import trie

__all__ = ["SOLID_NEEDLES", "VENDOR_HINT", "VENDOR_NEEDLES", "VENDOR_TOKEN"]


class _Token(NamedTuple):
    prefixes: tuple[str, ...]
    tail: str  # a regular expression
    is_telling: bool = True  # else other words begin like this too, and only the tail decides


_TOKENS = (
    _Token(("AKIA", "ASIA", "ABIA", "ACCA"), "[A-Z0-9]{16}(?![A-Z0-9])", False),  # AWS
    _Token(("ghp_", "gho_", "ghs_", "ghr_", "ghu_"), "[A-Za-z0-9]{20,}"),  # GitHub
    _Token(("github_pat_",), "[A-Za-z0-9_]{20,}"),
    _Token(("glpat-",), "[A-Za-z0-9_-]{16,}"),  # GitLab
    _Token(tuple(f"xox{kind}-" for kind in "abeoprs"), "[A-Za-z0-9-]{10,}"),  # Slack
    _Token(("xapp-",), "[A-Za-z0-9-]{10,}"),
    _Token(("sk-",), "[A-Za-z0-9_-]{16,}", False),
    _Token(  # Stripe
        tuple(f"{kind}k_{mode}_" for kind in "rsp" for mode in ("live", "test")),
        "[A-Za-z0-9]{10,}",
    ),
    _Token(("whsec_",), "[A-Za-z0-9+/=]{16,}"),
    _Token(("AIza",), "[A-Za-z0-9_-]{30,}"),  # Google
    _Token(("ya29.",), "[A-Za-z0-9_-]{16,}"),
    _Token(("npm_", "hf_"), "[A-Za-z0-9]{30,}"),
    _Token(("pypi-",), "[A-Za-z0-9_-]{30,}"),
    _Token(("SG.",), r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),  # SendGrid
    _Token(("dop_v1_", "doo_v1_", "dor_v1_"), "[a-f0-9]{40,}"),  # DigitalOcean
    _Token(("shpat_", "shpca_", "shppa_", "shpss_"), "[a-fA-F0-9]{30,}"),  # Shopify
    _Token(("hvb.", "hvs."), "[A-Za-z0-9_-]{20,}"),  # Vault
    _Token(("AGE-SECRET-KEY-1",), "[A-Z0-9]{50,}"),
    # Hexadecimal or in capitals, which only the vendor's name tells from an id
    _Token(("key-", "dapi"), "[0-9a-f]{32}", False),
    _Token(("NR",), "[A-Z]{2}-[A-Z0-9]{27}", False),
    _Token(("sq0",), "[a-z]{3}-[A-Za-z0-9_-]{22,}", False),
    _Token(
        (
            *("sbp_", "bkua_", "rubygems_", "lin_oauth_", "cio_", "tfp_", "figd_", "circle_"),
            *("pat_", "akp_"),
        ),
        "[0-9a-f]{32,}",
        False,
    ),
    _Token(("sntry",), "[a-z]_[0-9a-f]{32,}", False),
    _Token(("PMAK-",), "[0-9a-f]{24}-[0-9a-f]{34}"),
    _Token(("xkeysib-",), "[0-9a-f]{64}-[A-Za-z0-9]{16}"),
    _Token(("AKCp",), "[A-Za-z0-9]{40,}", False),
    _Token(("LTAI",), "[A-Za-z0-9]{16,24}", False),
    _Token(("AKID",), "[A-Za-z0-9]{32}", False),
    _Token(("EAA",), "[A-Z][A-Za-z0-9_-]{50,}", False),
    _Token(("sl.",), "[A-Za-z0-9_-]{100,}", False),
    _Token(("SA", "SC", "SN", "SO", "SU", "SX"), "[A-Z2-7]{56}(?![A-Z0-9])", False),  # NATS nkeys
)


def _pattern(token: _Token, tail: str) -> str:
    return "|".join(re.escape(prefix) + tail for prefix in token.prefixes)


def _least(token: _Token) -> str:
    """What each tail contains at least; nothing if the prefix is enough."""
    tail = re.sub(r"\(\?!.*", "", token.tail)
    return "" if token.is_telling else re.sub(r"\{([0-9]+),[0-9]*\}", r"{\1}", tail)


def _is_solid(prefix: str, tail: str) -> bool:
    """Whether a token contains only letters and digits."""
    return not re.search(r"[-_.]", prefix + re.sub(r"\[.*?\]", "", tail))


VENDOR_TOKEN = re.compile(
    rf"(?<![A-Za-z0-9])(?:{trie('|'.join(_pattern(token, token.tail) for token in _TOKENS))})"
)
VENDOR_NEEDLES = tuple(needle for token in _TOKENS for needle in token.prefixes)
"""One of them is in every token of `VENDOR_TOKEN`."""
SOLID_NEEDLES = tuple(
    prefix for each in _TOKENS for prefix in each.prefixes if _is_solid(prefix, each.tail)
)
"""One of them is in every token of `VENDOR_TOKEN` with only letters and digits."""
VENDOR_HINT = "|".join(_pattern(token, _least(token)) for token in _TOKENS)
"""For Rust: a part of every token of `VENDOR_TOKEN`."""
