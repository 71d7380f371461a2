"""The wire format against Google's own implementation, and beyond what it would take."""

from __future__ import annotations

import io

import pytest
from google.protobuf.internal import decoder, encoder  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st

from msport.checkpoint import protobuf


@given(st.integers(0, 2**64 - 1))
@example(127)
@example(128)
@example(2**63)
@example(2**64 - 1)
def test_varints_are_those_of_protobuf(value: int) -> None:
    encoded = protobuf.encode_varint(value)
    pieces: list[bytes] = []
    encoder._EncodeVarint(pieces.append, value)
    assert encoded == b"".join(pieces)
    assert decoder._DecodeVarint(encoded, 0) == (value, len(encoded))
    assert protobuf.read_varint(io.BytesIO(b"x" + encoded + b"x"), 1, 1 + len(encoded)) == (value, 1 + len(encoded))


@given(st.binary(max_size=12), st.integers(0, 12))
def test_no_varint_is_read_beyond_its_end(content: bytes, end: int) -> None:
    end = min(end, len(content))
    try:
        value, position = protobuf.read_varint(io.BytesIO(content), 0, end)
    except ValueError:
        return
    assert position <= end
    assert value < 2**64


@pytest.mark.parametrize("encoded", [b"", b"\x80", b"\x80" * 10, b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x01"])
def test_what_is_cut_too_long_or_above_64_bits_is_no_varint(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="no integer at byte 0"):
        protobuf.read_varint(io.BytesIO(encoded), 0, len(encoded))


def test_a_message_may_be_limited_in_fields() -> None:
    content = protobuf.encode_bytes(1, b"") * 3
    message = protobuf.Field(1, protobuf.LENGTH, 0, 0, len(content))
    assert len(protobuf.read_message(io.BytesIO(content), message, 3)) == 3
    with pytest.raises(ValueError, match="more than 2 fields"):
        protobuf.read_message(io.BytesIO(content), message, 2)


@given(st.binary(max_size=40))
def test_fields_lie_one_behind_the_other_within_the_message(content: bytes) -> None:
    position = 0
    try:
        for field in protobuf.read_fields(io.BytesIO(content), 0, len(content)):
            assert position < field.begin <= field.end <= len(content)
            position = field.end
    except ValueError:
        return
    assert position == len(content)


def test_a_field_is_read_by_number_and_length() -> None:
    content = protobuf.encode_bytes(1, b"ab") + protobuf.encode_bytes(2, b"") + protobuf.encode_key(3, 0) + b"\x05"
    file = io.BytesIO(content)
    fields = list(protobuf.read_fields(file, 0, len(content)))
    assert [(field.number, field.value) for field in fields] == [(1, 0), (2, 0), (3, 5)]
    assert protobuf.read_bytes(file, protobuf.only(fields, 1), 2) == b"ab"
    with pytest.raises(ValueError, match="at most 1 make sense"):
        protobuf.read_bytes(file, fields[0], 1)
    with pytest.raises(ValueError, match="not there exactly once"):
        protobuf.only(fields, 4)
    with pytest.raises(ValueError, match="not there exactly once"):
        protobuf.only(fields, 3)
    with pytest.raises(ValueError, match="not there exactly once"):
        protobuf.only(fields * 2, 1)
