"""The format that a content type names."""

from email.message import Message

from sahool_dlq.deadletter.headers import Headers, value_of

__all__ = ["content_type_of", "format_of", "message_of"]

_FORMATS = {
    "avro": ("avro", "x-avro", "vnd.apache.avro", "vnd.confluent.avro"),
    "cbor": ("cbor",),
    "msgpack": ("msgpack", "x-msgpack", "vnd.msgpack", "messagepack"),
    "protobuf": ("protobuf", "x-protobuf", "x-google-protobuf", "vnd.google.protobuf"),
}
_BY_NAME = {name: kind for kind, names in _FORMATS.items() for name in names}
_MESSAGE_PARAMETERS = ("messagetype", "message", "proto", "type")


def content_type_of(headers: Headers) -> str:
    """The content type of an event; empty if it has none.

    A CloudEvent in binary mode has it in `ce-datacontenttype` if it has no `content-type`.
    """
    return value_of(headers, "content-type") or value_of(headers, "ce-datacontenttype") or ""


def format_of(content_type: str) -> str:
    """avro, cbor, msgpack, protobuf, or json for all others."""
    tree, _, name = content_type.partition(";")[0].strip().lower().partition("/")
    if tree == "avro" and name == "binary":
        return "avro"
    last = name.removesuffix("+binary").rpartition("+")[2]
    return _BY_NAME.get(last, "json") if tree == "application" else "json"


def message_of(content_type: str) -> str | None:
    """The name of a protobuf message in the parameters of a content type."""
    parsed = Message()
    parsed["content-type"] = content_type
    for name, value in parsed.get_params([])[1:]:
        if name.lower() in _MESSAGE_PARAMETERS and value:
            return value
    return None
