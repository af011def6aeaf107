"""The rules file in TOML: masking, groups, owners, formats of bodies, profiles (docs/rules.md)."""

import msgspec

from sahool_dlq.deadletter.decoding.rules import DecodingRule
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.imports.profile import Profile
from sahool_dlq.deadletter.ownership import Ownership
from sahool_dlq.deadletter.redaction.redactor import RedactionRules

__all__ = ["Rules", "read_rules"]


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a rules file."""

    redaction: RedactionRules = RedactionRules()
    grouping: GroupingRules = GroupingRules()
    decoding: tuple[DecodingRule, ...] = ()
    ownership: Ownership = Ownership()
    profile: tuple[Profile, ...] = ()


def read_rules(text: str) -> Rules:
    """The rules of a file.

    Raises ValueError with one sentence that names the line or the rule if they are not valid.
    """
    try:
        return msgspec.toml.decode(text, type=Rules)
    except msgspec.MsgspecError as error:
        what, _, where = str(error).partition(" - at `$")
        place = where.strip("`.")
        raise ValueError(f"{place}: {what}" if place else what) from error
