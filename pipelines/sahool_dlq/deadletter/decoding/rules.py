"""The part of the rules file that says how bodies are encoded, by subject (docs/rules.md)."""

from typing import Literal

import msgspec

__all__ = ["DecodingRule", "Format"]

Format = Literal["avro", "cbor", "json", "msgpack", "opaque", "protobuf"]


class DecodingRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The format of the events on some subjects."""

    subject: str
    """A NATS filter: `sahool.sensors.>`."""
    format: Format
    """`opaque`: never decoded."""
    schema: str | None = None
    """Avro: file with the schema of the writer; without one, the schema registry is asked."""
    descriptors: str | None = None
    """Protobuf: file with the descriptor set of `protoc --include_imports --descriptor_set_out`."""
    message: str | None = None
    """Protobuf: full name of the message; without one, the content type must say it."""

    def __post_init__(self) -> None:
        needless = {"schema": self.format == "avro"} | dict.fromkeys(
            ("descriptors", "message"), self.format == "protobuf"
        )
        for name, is_used in needless.items():
            if getattr(self, name) is not None and not is_used:
                raise ValueError(f"{self.format} has no {name}")
        if self.format == "protobuf" and self.descriptors is None:
            raise ValueError("protobuf needs descriptors: the file of a descriptor set")
