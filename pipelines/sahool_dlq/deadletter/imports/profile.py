"""Profiles: how the dead letters of other software say what failed (docs/import.md)."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

__all__ = ["BUILT_IN", "Key", "Profile", "built_in", "profile_named", "with_streams"]

Key = Literal[
    "original_subject",
    "original_stream",
    "original_sequence",
    "consumer",
    "service",
    "source_service",
    "handler",
    "event_id",
    "event_type",
    "error_type",
    "error_message",
    "stack_trace",
    "deliveries",
    "retries",
    "first_failed_at",
    "failed_at",
]
"""What a dead letter may say of its failure."""

_SHIPPED = Path(__file__).with_name("profiles.toml")
_SUBJECT = "{subject}"


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of dead letters, and where they are."""

    name: str
    like: str | None = None
    """The built-in profile that this one changes."""
    stream: str | None = None
    """The stream with the dead letters; every run imports it. None: only by hand."""
    subjects: tuple[str, ...] = ()
    """Filters of the dead letters in the stream; none: all messages."""
    headers: dict[Key, str | tuple[str, ...]] = {}
    """Names of the headers that say something; the first one of the message counts."""
    body: dict[Key, str | tuple[str, ...]] = {}
    """Keys of the JSON body that say something, with dots between the keys of a path."""
    values: dict[Key, str] = {}
    """What is the same for all, unless the message says it."""
    base64: tuple[Key, ...] = ()
    """What the message says in base64."""
    subject: str | None = None
    """How the subject of a dead letter is made from that of its event: `dlq.{subject}`."""
    data: str | None = None
    """Key of the JSON body with the event's body; None: it is the whole body."""
    data_encoding: Literal["json", "text", "base64"] = "json"
    """How it is written there."""
    data_headers: str | None = None
    """Key of the JSON body with the event's headers; None: they are those of the message."""
    moved: str | None = None
    """The reason with which the software terminates an event whose dead letter it has stored."""
    moved_from: tuple[str, ...] = ()
    """Names or patterns of the streams whose events it moves to this one."""

    def __post_init__(self) -> None:
        if self.subject is not None and self.subject.count(_SUBJECT) != 1:
            raise ValueError(f"{self.name}: subject must contain {_SUBJECT} once")
        if self.like is not None and self.like not in built_in():
            raise ValueError(f"{self.name}: {_unknown(self.like)}")

    @property
    def filters(self) -> tuple[str, ...]:
        """The subject filters of its dead letters, sorted."""
        return tuple(sorted(set(self.subjects))) or (">",)

    @property
    def names_anything(self) -> bool:
        """Whether it reads anything about the failure from a message."""
        return bool(self.headers or self.body)

    def has_moved(self, stream: str, reason: str) -> bool:
        """Whether an event of that stream was terminated because its dead letter is in this one."""
        is_its = any(fnmatchcase(stream, pattern) for pattern in self.moved_from)
        return is_its and self.moved is not None and reason == self.moved

    def subject_of(self, subject: str) -> str | None:
        """The event's subject from the dead letter's; None if it does not have that form."""
        if self.subject is None:
            return None
        before, _, after = self.subject.partition(_SUBJECT)
        inner = subject[len(before) : len(subject) - len(after)]
        return inner if inner and before + inner + after == subject else None


def profile_named(name: str, own: Iterable[Profile] = ()) -> Profile:
    """The profile of that name, `own` ones first, complete; raises ValueError if there is none."""
    known = built_in() | {each.name: each for each in own}
    if name not in known:
        raise ValueError(_unknown(name, known))
    return _complete(known[name])


def with_streams(own: Sequence[Profile]) -> list[Profile]:
    """The profiles that name a stream, complete: every run imports these."""
    return [profile_named(each.name, own) for each in own if each.stream]


@cache
def built_in() -> dict[str, Profile]:
    """The profiles that come with the package, by name."""
    read = msgspec.toml.decode(_SHIPPED.read_bytes(), type=dict[str, list[Profile]])
    return {each.name: each for each in read["profile"]}


def _complete(profile: Profile) -> Profile:
    """With everything that it does not say itself from the profile that it is like."""
    if profile.like is None:
        return profile
    base, said = built_in()[profile.like], _said(profile)
    for place in ("headers", "body", "values"):
        said[place] = {**getattr(base, place), **getattr(profile, place)}
    return msgspec.structs.replace(base, **said)


def _said(profile: Profile) -> dict[str, Any]:
    return {
        field.name: value
        for field in msgspec.structs.fields(Profile)
        if (value := getattr(profile, field.name)) != field.default
    }


def _unknown(name: str, known: Mapping[str, Profile] | None = None) -> str:
    names = ", ".join(built_in() if known is None else known)
    return f"there is no profile {name!r}; there are {names}"


BUILT_IN = tuple(built_in())
"""Their names."""
