"""Protobuf with a descriptor set: a message as protobuf's own JSON, and back."""

from collections.abc import Callable
from typing import Any

from sahool_dlq.deadletter.body import LARGEST_INFLATED
from sahool_dlq.deadletter.decoding.compression import library
from sahool_dlq.deadletter.decoding.formats import Decoded
from sahool_dlq.deadletter.decoding.opened import BodyError

__all__ = ["Descriptors"]


class Descriptors:
    """The messages of a descriptor set, by full name."""

    def __init__(self, data: bytes) -> None:
        """Raises ValueError if `data` is no complete descriptor set."""
        pool = library("google.protobuf.descriptor_pool")
        files = library("google.protobuf.descriptor_pb2").FileDescriptorSet
        self._pool = pool.DescriptorPool()
        try:
            found = files.FromString(data)
            for file in found.file:
                self._pool.Add(file)
            self.names = sorted(
                name for file in found.file for name in _names(file.package, file.message_type)
            )
            for file in found.file:
                self._pool.FindFileByName(file.name)  # fails if an import is missing
        except Exception as error:
            raise ValueError(
                f"it is no complete descriptor set ({error}): make it with protoc"
                " --include_imports --descriptor_set_out=FILE"
            ) from error
        if not self.names:
            raise ValueError("it is a descriptor set without messages")

    def message(self, name: str) -> Callable[[], Any]:
        """The class of a message; raises ValueError for a name that the set does not have."""
        try:
            found = self._pool.FindMessageTypeByName(name)
        except KeyError:
            raise ValueError(
                f"there is no message {name!r}; there are {', '.join(self.names[:10])}"
            ) from None
        factory = library("google.protobuf.message_factory")
        kind: Callable[[], Any] = factory.GetMessageClass(found)
        return kind

    def decode(self, data: bytes, name: str) -> Decoded:
        """A body that is a message of this name."""
        kind, json = self.message(name), library("google.protobuf.json_format")
        message = kind()
        message.ParseFromString(data)
        if message.ByteSize() and not message.ListFields():
            raise BodyError(f"it has no field of {name}, so it is another message")
        text = json.MessageToJson(
            message,
            indent=None,
            preserving_proto_field_name=True,
            descriptor_pool=self._pool,
            ensure_ascii=False,
        )
        if len(text) > LARGEST_INFLATED:
            raise BodyError(f"it is more than {LARGEST_INFLATED:,} characters as JSON")

        def encoded(edited: str) -> bytes:
            again = self._parsed(json, text, kind())
            if _canonical(again) != _canonical(message):
                raise BodyError(f"it has fields that {name} does not describe, and would lose them")
            return _canonical(self._parsed(json, edited, kind()))

        return text, encoded

    def _parsed(self, json: Any, text: str, message: Any) -> Any:
        try:
            return json.Parse(text, message, descriptor_pool=self._pool)
        except Exception as error:
            raise BodyError(f"it does not fit the protobuf message: {error}") from error


def _canonical(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _names(package: str, messages: Any) -> list[str]:
    prefix = f"{package}." if package else ""
    found = []
    for message in messages:
        name = f"{prefix}{message.name}"
        found += [name, *_names(name, message.nested_type)]
    return found
