"""Where alerts go: the channels that the rules name, by service, tenant and owner."""

from collections.abc import Sequence
from math import isinf

from sahool_dlq.alerts.channels import Channel
from sahool_dlq.alerts.rules import AlertRules
from sahool_dlq.errors import SettingsError

__all__ = ["Routes", "check_channels"]

_OF_MONITOR = "critical_errors"
"""The rule about the failures that the monitor sends within seconds."""


class Routes:
    """The channels of a failure that `dlq monitor` sends: those of the rule about critical errors.

    Raises SettingsError if the rules name a channel that does not exist.
    """

    def __init__(self, rules: AlertRules, channels: Sequence[Channel]) -> None:
        check_channels(rules, channels)
        rule = rules.rule(_OF_MONITOR)
        assert rule is not None
        self._scopes = rules.scopes(rule)
        self._channels = tuple(channels)
        self.needs_owner = any(scope.owner != "*" for scope in self._scopes)

    def of(self, service: str, tenant: str | None, owner: str | None) -> tuple[Channel, ...] | None:
        """The channels of such a failure; None if the rules say that it fires nothing."""
        scope = next(scope for scope in self._scopes if scope.takes(service, tenant, owner))
        if isinf(scope.above):
            return None
        wanted = scope.channels
        return tuple(each for each in self._channels if not wanted or each.key in wanted)


def check_channels(rules: AlertRules, channels: Sequence[Channel]) -> None:
    """Raises SettingsError if the rules name a channel that does not exist."""
    known = {channel.key for channel in channels}
    wanted = {key for rule in rules.rules for scope in rules.scopes(rule) for key in scope.channels}
    if unknown := sorted(wanted - known):
        raise SettingsError(
            f"The alert rules send to the channel {unknown[0]!r}, which DLQ_ALERT_URLS does not"
            f' name: give it an entry "{unknown[0]}=…".'
        )
