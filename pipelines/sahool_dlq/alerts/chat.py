"""Channels for people: Apprise channels, with messages cut to their limits."""

from bisect import bisect_right
from typing import Any

from sahool_dlq.alerts.message import Message

_CUT = "… (cut)"
_MARKUP = 40  # maximum characters that Apprise adds around a title


class Chat:
    """Slack, Teams, Telegram, mail, SMS and many more; raises ValueError if `url` is not valid."""

    is_for_incidents = is_forgetful = False

    def __init__(self, url: str) -> None:
        import apprise  # slow to import, and only needed with a channel

        target: Any = apprise.Apprise.instantiate(url)
        if target is None:
            raise ValueError(
                "is not a channel that Apprise knows, such as slack://…, mailto://… or"
                " json://host/path"
            )
        # A redirect (301, 302, 303) would lose the body and count as sent.
        target.redirects = False
        # A refusal would count as sent.
        target.optional = False
        self._is_split = target.overflow_mode is apprise.OverflowMode.SPLIT  # as set in the URL
        self._target = target
        self._apprise = apprise.Apprise(servers=[target])
        self.name = str(target.service_name)

    def send(self, message: Message) -> bool:
        """Whether the channel accepted it; any plugin can raise anything."""
        import apprise

        title, body = (message.title, message.body) if self._is_split else self._cut(message)
        kind = apprise.NotifyType.SUCCESS if message.is_good else apprise.NotifyType.FAILURE
        return bool(
            self._apprise.notify(  # as text, so that HTML channels escape it
                title=title, body=body, notify_type=kind, body_format=apprise.NotifyFormat.TEXT
            )
        )

    def _cut(self, message: Message) -> tuple[str, str]:
        """Title and body within the channel's limit, with a note about the cut.

        Apprise itself cuts the HTML text in the middle of a tag or an entity, and Telegram refuses
        that.
        """
        limit, longest_title = int(self._target.body_maxlen), int(self._target.title_maxlen)
        is_shared = not longest_title or self._target.overflow_amalgamate_title
        most = limit // 2 if is_shared else longest_title
        title = self._shorter(message.title, min(most, longest_title or most))
        if is_shared:
            limit -= self._size(title) + _MARKUP
        return title, self._shorter(message.body, limit)

    def _shorter(self, text: str, limit: int) -> str:
        if self._size(text) <= limit:
            return text
        most = bisect_right(
            range(1, len(text)), limit, key=lambda length: self._size(text[:length] + _CUT)
        )
        return text[:most].rstrip() + _CUT

    def _size(self, text: str) -> int:
        """The length of a text as this channel writes it."""
        import apprise.conversion

        convert: Any = apprise.conversion.convert_between
        return len(convert(apprise.NotifyFormat.TEXT, self._target.notify_format, text))
