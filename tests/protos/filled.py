"""Messages with a value in every field, made from the descriptors: a new field is covered as soon as it exists."""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from protos import recommender_pb2

SCALARS: dict[int, Any] = {
    FieldDescriptor.TYPE_UINT32: 2**32 - 1,
    FieldDescriptor.TYPE_UINT64: 2**64 - 1,
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_STRING: "smelu:beta=0.5 \u2713",
    FieldDescriptor.TYPE_BYTES: b"\x00\xff\x80",
    FieldDescriptor.TYPE_FLOAT: -1.1754943508222875e-38,  # exact in 32 bits
    FieldDescriptor.TYPE_DOUBLE: 0.1,
    FieldDescriptor.TYPE_ENUM: recommender_pb2.CAUSE_REFRESH,
}
UNKNOWN = b"\xa2\x06\x03new"
"""Field 100, a string, as a later version might send it."""
MESSAGES: dict[str, Descriptor] = dict(recommender_pb2.DESCRIPTOR.message_types_by_name)


def filled(kind: Descriptor) -> Message:
    """A message of this kind whose every field is set, repeated ones twice."""
    message: Message = message_factory.GetMessageClass(kind)()
    for field in kind.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (SCALARS[part.type] for part in field.message_type.fields)
            getattr(message, field.name)[key] = value
            continue
        value = filled(field.message_type) if field.message_type is not None else SCALARS[field.type]
        if isinstance(getattr(message, field.name), Message):
            getattr(message, field.name).CopyFrom(value)
        elif hasattr(getattr(message, field.name), "extend"):
            getattr(message, field.name).extend([value, value])
        else:
            setattr(message, field.name, value)
    return message
