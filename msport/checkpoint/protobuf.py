"""The part of Protobuf's wire format that MindSpore's ``.ckpt`` needs, read and written.

Source: https://protobuf.dev/programming-guides/encoding. Reading never allocates more than a few bytes and never looks
beyond the end that is passed in; a payload is reported as its byte range in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

VARINT = 0
FIXED64 = 1
LENGTH = 2
FIXED32 = 5

_MAX_VARINT_BYTES = 10
_MAX_KEY_BYTES = 5
_MAX_NUMBER = 2**29 - 1
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: number, wire type, the value if it is a varint, and the byte range of the payload in
    the file.
    """

    number: int
    wire_type: int
    value: int
    begin: int
    end: int


def encode_varint(value: int) -> bytes:
    """Encode a non-negative integer below 2**64."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_key(number: int, wire_type: int) -> bytes:
    """Encode the key before a field's payload."""
    return encode_varint(number << 3 | wire_type)


def encode_bytes(number: int, payload: bytes) -> bytes:
    """Encode a whole length-delimited field."""
    return encode_length(number, len(payload)) + payload


def encode_length(number: int, length: int) -> bytes:
    """Encode what precedes a length-delimited payload of ``length`` bytes."""
    return encode_key(number, LENGTH) + encode_varint(length)


def read_fields(file: BinaryIO, begin: int, end: int) -> Iterator[Field]:
    """Iterate over the fields of the message in bytes ``[begin, end)`` of ``file``. Raises ValueError if it is no
    message.

    The file's position may be moved between two fields.
    """
    while begin < end:
        key, payload = read_varint(file, begin, min(begin + _MAX_KEY_BYTES, end))
        field = _read_payload(file, key >> 3, key & 7, payload, end)
        yield field
        begin = field.end


def read_message(file: BinaryIO, message: Field, max_fields: int) -> list[Field]:
    """The fields of an embedded message; ValueError if there are more than ``max_fields``."""
    fields = list(islice(read_fields(file, message.begin, message.end), max_fields + 1))
    if len(fields) > max_fields:
        raise ValueError(f"more than {max_fields} fields in the message at byte {message.begin}")
    return fields


def only(fields: list[Field], number: int) -> Field:
    """The one length-delimited field of that number; ValueError if it is missing, repeated, or of another wire type."""
    found = [field for field in fields if field.number == number]
    if len(found) != 1 or found[0].wire_type != LENGTH:
        raise ValueError(f"field {number} is not there exactly once with a length")
    return found[0]


def read_bytes(file: BinaryIO, field: Field, max_bytes: int) -> bytes:
    """The payload of a field; ValueError if it is longer than ``max_bytes``."""
    if field.end - field.begin > max_bytes:
        raise ValueError(f"{field.end - field.begin} bytes at byte {field.begin} where at most {max_bytes} make sense")
    file.seek(field.begin)
    return file.read(field.end - field.begin)


def read_packed(file: BinaryIO, field: Field, max_values: int) -> list[int]:
    """The varints of a packed repeated field; ValueError if there are more than ``max_values``."""
    values: list[int] = []
    position = field.begin
    while position < field.end and len(values) <= max_values:
        value, position = read_varint(file, position, field.end)
        values.append(value)
    if position < field.end:
        raise ValueError(f"more than {max_values} integers at byte {field.begin}")
    return values


def read_varint(file: BinaryIO, position: int, end: int) -> tuple[int, int]:
    """Decode the varint at ``position`` into its value and the position after it; ValueError if it passes ``end``."""
    file.seek(position)
    encoded = file.read(min(_MAX_VARINT_BYTES, end - position))
    value = 0
    for index, byte in enumerate(encoded):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, position + index + 1
    raise ValueError(f"no integer at byte {position}")


def _read_payload(file: BinaryIO, number: int, wire_type: int, position: int, end: int) -> Field:
    value = 0
    begin = position
    if wire_type == VARINT:
        value, stop = read_varint(file, begin, end)
    elif wire_type == LENGTH:
        length, begin = read_varint(file, begin, end)
        stop = begin + length
    elif wire_type in _FIXED_SIZES:
        stop = begin + _FIXED_SIZES[wire_type]
    else:
        raise ValueError(f"unknown wire type {wire_type} before byte {position}")
    if not 0 < number <= _MAX_NUMBER or stop > end:
        raise ValueError(f"the field at byte {position} is none, or does not end before byte {end}")
    return Field(number, wire_type, value, begin, stop)
