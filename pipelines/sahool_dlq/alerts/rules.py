"""Alert rules as data: the shipped file, changed by the user's file (docs/alerts.md)."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from sahool_dlq.deadletter.error_families import with_subclasses
from sahool_dlq.errors import SettingsError
from sahool_dlq.settings import Settings

__all__ = [
    "EVERYTHING",
    "AlertRules",
    "Override",
    "Rule",
    "Scope",
    "alert_rules",
    "error_classes",
    "read_alert_rules",
    "sql_pattern",
]

EVERYTHING = "all"
"""The scope of failures that no override takes."""

Severity = Literal["warning", "critical"]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_SHIPPED = Path(__file__).with_name("rules.toml")


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule: the value that its SELECT of `sql/alerts` finds is above `above`."""

    name: str
    title: str  # its text
    unit: str  # of the value
    above: NotNegative
    severity: Severity
    for_minutes: NotNegative  # how long the condition must hold before it fires
    keep_minutes: NotNegative  # how long it must be over before it is resolved
    repeat_minutes: NotNegative  # between two messages while it still fires
    cooldown_minutes: NotNegative  # before an alert that was resolved may be sent again
    channels: tuple[str, ...]  # names; none: all
    metric: Annotated[str, msgspec.Meta(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")]  # of `dlq exporter`
    first: str  # the first step
    command: str  # the next command; {sample} is a failure's id, {subject} the alert's subject
    by_service: bool = False  # it can have thresholds by service and tenant
    window_minutes: Annotated[float, msgspec.Meta(gt=0)] = 0  # length of its time window; 0: none
    least_count: int = 0  # minimum number of messages; fewer: unknown
    error_types: tuple[str, ...] = ()  # with their known subclasses
    is_enabled: bool = msgspec.field(default=True, name="enabled")


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Other thresholds and channels for some services, tenants or owners; wildcards `*` and `?`."""

    rule: str = "*"
    service: str = "*"
    tenant: str = "*"
    owner: str = "*"  # of the failure's group
    above: NotNegative | None = None
    severity: Severity | None = None
    channels: tuple[str, ...] | None = None
    is_enabled: bool = msgspec.field(default=True, name="enabled")


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a rule: failures of these services, tenants and owners; the first matching scope
    takes them.
    """

    name: str
    service: str
    tenant: str
    owner: str
    above: float
    severity: Severity
    channels: tuple[str, ...]

    def takes(self, service: str, tenant: str | None, owner: str | None) -> bool:
        """Whether a failure counts here, as `sql/alerts/scoped_failures.sql` decides it."""
        said = ((self.service, service), (self.tenant, tenant or ""), (self.owner, owner or ""))
        return all(_matches(wildcard, text) for wildcard, text in said)


class _File(msgspec.Struct, frozen=True):
    """The structure of a user's file; its content is read together with the shipped one."""

    defaults: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    overrides: list[dict[str, Any]] = []


class AlertRules(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the alert file."""

    rules: tuple[Rule, ...]
    overrides: tuple[Override, ...] = ()
    link: str = ""

    def rule(self, name: str) -> Rule | None:
        """The rule with this name, if it (still) exists."""
        return next((rule for rule in self.rules if rule.name == name), None)

    def scopes(self, rule: Rule) -> tuple[Scope, ...]:
        """The parts of a rule in order; the last one takes what no override takes."""
        found: dict[str, Scope] = {}
        for override in self.overrides:
            if rule.by_service and override.rule in ("*", rule.name):
                above = rule.above if override.above is None else override.above
                scope = Scope(
                    name=_name(override),
                    service=override.service,
                    tenant=override.tenant,
                    owner=override.owner,
                    above=above if override.is_enabled else float("inf"),
                    severity=override.severity or rule.severity,
                    channels=rule.channels if override.channels is None else override.channels,
                )
                found.setdefault(scope.name, scope)
        rest = Scope(
            name=EVERYTHING,
            service="*",
            tenant="*",
            owner="*",
            above=rule.above,
            severity=rule.severity,
            channels=rule.channels,
        )
        return (*found.values(), rest)

    def scope(self, rule: Rule, name: str) -> Scope:
        """The part with this name; a removed part counts as the rest."""
        scopes = self.scopes(rule)
        return next((scope for scope in scopes if scope.name == name), scopes[-1])


def alert_rules(settings: Settings) -> AlertRules:
    """The current rules from the shipped file and DLQ_ALERT_RULES_FILE.

    Raises SettingsError, with the place of the error, if the latter is not valid.
    """
    file = settings.alert_rules_file
    if file is None:
        return read_alert_rules()
    try:
        return read_alert_rules(file.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"The alert rules in {file} cannot be used: {reason}.") from error


def read_alert_rules(changes: str = "") -> AlertRules:
    """The shipped rules with the changes in a user's TOML file.

    Raises ValueError, in one sentence with the place of the error, if they are not valid.
    """
    shipped = tomllib.loads(_SHIPPED.read_text())
    own = tomllib.loads(changes)
    if unknown := own.keys() - {"link", "defaults", "rules", "overrides"}:
        raise ValueError(f"unknown key {sorted(unknown)[0]}")
    file: _File = _convert(own, _File, "")
    if unknown := file.defaults.keys() - shipped["defaults"].keys():
        raise ValueError(f"defaults: unknown key {sorted(unknown)[0]}")
    if unknown := file.rules.keys() - shipped["rules"].keys():
        raise ValueError(
            f"there is no rule {sorted(unknown)[0]}, there are {', '.join(shipped['rules'])}"
        )
    defaults = shipped["defaults"] | file.defaults
    _convert({**shipped["rules"]["gap"], **defaults, "name": "gap"}, Rule, "defaults")
    rules = [
        _convert(
            {
                **defaults,
                **rule,
                **_convert(file.rules.get(name, {}), dict, f"rules.{name}"),
                "name": name,
            },
            Rule,
            f"rules.{name}",
        )
        for name, rule in shipped["rules"].items()
    ]
    overrides = [
        _convert(value, Override, f"overrides[{number}]")
        for number, value in enumerate(file.overrides, 1)
    ]
    for override in overrides:
        if override.rule not in ("*", *shipped["rules"]):
            raise ValueError(f"there is no rule {override.rule} to override")
        if any(rule.name == override.rule and not rule.by_service for rule in rules):
            raise ValueError(f"{override.rule} is about the pipeline, not about services")
        if (override.service, override.tenant, override.owner) == ("*", "*", "*"):
            raise ValueError(
                f"the override of {override.rule} names no service, no tenant and no owner"
            )
    link = _convert(own.get("link", shipped["link"]), str, "link")
    return AlertRules(rules=tuple(rules), overrides=tuple(overrides), link=link)


def error_classes(rule: Rule) -> list[str]:
    """The class names of a rule."""
    return with_subclasses(rule.error_types)


def sql_pattern(wildcard: str) -> str:
    """A pattern with `*` and `?` as a SQL LIKE pattern."""
    escaped = wildcard.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _matches(wildcard: str, text: str) -> bool:
    """The same as LIKE with `sql_pattern`."""
    pattern = re.escape(wildcard).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def _name(override: Override) -> str:
    parts = [
        f"{key} {value}"
        for key in ("service", "tenant", "owner")
        if (value := getattr(override, key)) != "*"
    ]
    return ", ".join(parts)


def _convert(value: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise ValueError(f"{where}{place.strip('`')}".lstrip(".") + f": {what}") from error
