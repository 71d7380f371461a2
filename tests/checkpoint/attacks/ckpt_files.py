"""``.ckpt`` files that must be refused."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from msport.checkpoint.protobuf import FIXED32, FIXED64, LENGTH, VARINT, encode_bytes, encode_key, encode_varint


@dataclass(frozen=True)
class Attack:
    content: bytes
    mentions: str


def dims_of(*dims: int) -> bytes:
    return b"".join(encode_key(1, VARINT) + encode_varint(dim) for dim in dims)


def tensor(dims: bytes, kind: bytes, content: bytes) -> bytes:
    return dims + encode_bytes(2, kind) + encode_bytes(3, content)


def value(tag: bytes, body: bytes) -> bytes:
    return encode_bytes(1, encode_bytes(1, tag) + encode_bytes(2, body))


def simple(
    tag: bytes = b"w", dims: tuple[int, ...] = (1,), kind: bytes = b"Float32", content: bytes = b"0000"
) -> bytes:
    return value(tag, tensor(dims_of(*dims), kind, content))


def nested(depth: int) -> bytes:
    message = b""
    for _ in range(depth):
        message = encode_bytes(1, message)
    return message


def raw_length(number: int, length: int) -> bytes:
    return encode_key(number, LENGTH) + encode_varint(length)


GOOD = simple()
CRC = b"crc_num" + zlib.crc32(GOOD).to_bytes(10, "big")
NOT_A_CKPT = "not a MindSpore .ckpt file"

ATTACKS = {
    "empty file": Attack(b"", "holds no tensor"),
    "only a trailer": Attack(b"crc_num" + bytes(10), "holds no tensor"),
    "cut in the content": Attack(GOOD[:-1], NOT_A_CKPT),
    "cut in the tag": Attack(GOOD[:5], NOT_A_CKPT),
    "cut in a varint": Attack(b"\x0a\x80", NOT_A_CKPT),
    "one byte too many": Attack(GOOD + b"\0", NOT_A_CKPT),
    "half a trailer": Attack(GOOD + CRC[:-1], NOT_A_CKPT),
    "encrypted or random": Attack(bytes(range(255, 0, -1)), NOT_A_CKPT),
    "a safetensors file": Attack((2).to_bytes(8, "little") + b"{}", NOT_A_CKPT),
    "a torch zip": Attack(b"PK\x03\x04" + bytes(60), NOT_A_CKPT),
    "value of 2**63 bytes": Attack(raw_length(1, 2**63) + GOOD, NOT_A_CKPT),
    "value of 2**64-1 bytes": Attack(raw_length(1, 2**64 - 1), NOT_A_CKPT),
    "varint of eleven bytes": Attack(b"\x0a" + b"\x80" * 10 + b"\x01", NOT_A_CKPT),
    "varint above 64 bits": Attack(b"\x0a" + b"\xff" * 9 + b"\x7f", NOT_A_CKPT),
    "tag reaches beyond its value": Attack(encode_bytes(1, raw_length(1, 100)) + bytes(100), NOT_A_CKPT),
    "tensor reaches beyond its value": Attack(
        encode_bytes(1, encode_bytes(1, b"w") + raw_length(2, 100)) + bytes(100), NOT_A_CKPT
    ),
    "content reaches beyond its tensor": Attack(
        value(b"w", dims_of(1) + encode_bytes(2, b"Float32") + raw_length(3, 2**40)) + bytes(100), NOT_A_CKPT
    ),
    "content of 2**62 bytes": Attack(
        value(b"w", dims_of(2**60) + encode_bytes(2, b"Float32") + raw_length(3, 2**62)), NOT_A_CKPT
    ),
    "field 0": Attack(b"\x02\x00", NOT_A_CKPT),
    "field number above 29 bits": Attack(
        value(b"w", raw_length(2**29, 0) + tensor(dims_of(1), b"Float32", b"0000")), NOT_A_CKPT
    ),
    "key of six bytes": Attack(
        value(b"w", b"\xb8\x80\x80\x80\x80\x00\x00" + tensor(dims_of(1), b"Float32", b"0000")), NOT_A_CKPT
    ),
    "fields nested in fields": Attack(nested(200), NOT_A_CKPT),
    "a hundred thousand empty values": Attack(encode_bytes(1, b"") * 100_000, NOT_A_CKPT),
    "value as a varint": Attack(encode_key(1, VARINT) + b"\x01", NOT_A_CKPT),
    "value as a group": Attack(encode_key(1, 3) + encode_key(1, 4), NOT_A_CKPT),
    "value as fixed 32": Attack(encode_key(1, FIXED32) + bytes(4), NOT_A_CKPT),
    "wire type 7": Attack(encode_key(1, 7) + bytes(8), NOT_A_CKPT),
    "unknown top-level field": Attack(GOOD + encode_bytes(2, b"x"), NOT_A_CKPT),
    "tag as a varint": Attack(encode_bytes(1, encode_key(1, VARINT) + b"\x01" + encode_bytes(2, b"")), NOT_A_CKPT),
    "tag missing": Attack(encode_bytes(1, encode_bytes(2, tensor(dims_of(1), b"Float32", b"0000"))), NOT_A_CKPT),
    "tag twice": Attack(encode_bytes(1, encode_bytes(1, b"w") * 2), NOT_A_CKPT),
    "tag not UTF-8": Attack(simple(tag=b"\xff"), NOT_A_CKPT),
    "tag of a megabyte": Attack(simple(tag=b"w" * 2**20), "where at most 65536"),
    "tensor missing": Attack(encode_bytes(1, encode_bytes(1, b"w")), NOT_A_CKPT),
    "tensor twice": Attack(encode_bytes(1, encode_bytes(1, b"w") + 2 * encode_bytes(2, b"")), NOT_A_CKPT),
    "a thousand fields in a value": Attack(encode_bytes(1, encode_key(9, VARINT) + b"\x00" * 2000), NOT_A_CKPT),
    "type missing": Attack(value(b"w", dims_of(1) + encode_bytes(3, b"0000")), NOT_A_CKPT),
    "type as fixed 64": Attack(value(b"w", encode_key(2, FIXED64) + bytes(8) + encode_bytes(3, b"")), NOT_A_CKPT),
    "type unknown": Attack(simple(kind=b"Float31"), "'Float31'"),
    "type of MindSpore's that it cannot load": Attack(simple(kind=b"Float8E4M3FN", content=b"0"), "'Float8E4M3FN'"),
    "type that is long": Attack(simple(kind=b"F" * 1000), "where at most 64"),
    "content missing": Attack(value(b"w", dims_of(1) + encode_bytes(2, b"Float32")), NOT_A_CKPT),
    "content twice": Attack(value(b"w", tensor(dims_of(1), b"Float32", b"00") + encode_bytes(3, b"00")), NOT_A_CKPT),
    "content as a varint": Attack(
        value(b"w", dims_of(1) + encode_bytes(2, b"Int8") + encode_key(3, VARINT) + b"\x01"), NOT_A_CKPT
    ),
    "content too short": Attack(simple(dims=(2,)), "does not fill its 4 bytes"),
    "content too long": Attack(simple(content=b"0" * 8), "does not fill its 8 bytes"),
    "dims negative": Attack(simple(dims=(2**64 - 1,)), "out of range"),
    "dims overflow": Attack(simple(dims=(2**62, 2**62)), "does not fill"),
    "dims overflow but for a zero": Attack(simple(dims=(2**62, 2**62, 0), content=b""), "overflows"),
    "dims wrap to the length": Attack(simple(dims=(2**62 + 1,)), "does not fill"),
    "dims as fixed 64": Attack(value(b"w", encode_key(1, FIXED64) + bytes(8) + tensor(b"", b"Int8", b"0")), NOT_A_CKPT),
    "rank 33": Attack(simple(dims=(1,) * 33), "more than 34 fields"),
    "packed dims of rank 33": Attack(value(b"w", tensor(encode_bytes(1, b"\x01" * 33), b"Int8", b"0")), NOT_A_CKPT),
    "rank 33 in two pieces": Attack(
        value(b"w", tensor(dims_of(1) + encode_bytes(1, b"\x01" * 32), b"Int8", b"0")), "33 dimensions"
    ),
    "rank 1000": Attack(simple(dims=(1,) * 1000), NOT_A_CKPT),
    "packed dims of rank 1000": Attack(value(b"w", tensor(encode_bytes(1, b"\x01" * 1000), b"Int8", b"0")), NOT_A_CKPT),
    "a scalar with shape [0] of two elements": Attack(simple(dims=(0,), content=b"0" * 8), "does not fill its 8 bytes"),
    "slices that disagree in dims": Attack(simple(dims=(2,)) + simple(dims=(1,)), "slices disagree"),
    "slices that disagree in type": Attack(simple(dims=(2,)) + simple(dims=(2,), kind=b"Int32"), "slices disagree"),
    "slices that miss a part": Attack(simple(dims=(3,)) * 2, "does not fill its 8 bytes"),
    "the same tensor twice": Attack(GOOD * 2, "does not fill its 8 bytes"),
    "slices that are no neighbours": Attack(
        simple(dims=(2,)) + simple(tag=b"v") + simple(dims=(2,)), "does not fill its 4 bytes"
    ),
    "a name that comes back": Attack(GOOD + simple(tag=b"v") + GOOD, "appears twice"),
    "a MapParameter": Attack(encode_bytes(1, encode_bytes(1, b"w") + encode_bytes(3, b"")), "MapParameter"),
    "a string that is no UTF-32": Attack(simple(kind=b"str", dims=(0,), content=b"\xff" * 4), "not UTF-32"),
    "a string of half a character": Attack(simple(kind=b"str", dims=(0,), content=b"a\0\0\0b\0"), "not UTF-32"),
    "a string twice": Attack(simple(kind=b"str", dims=(0,), content=b"a\0\0\0") * 2, "appears twice"),
    "a string that names a tensor": Attack(simple(kind=b"str", dims=(0,), content=b"a\0\0\0") + GOOD, "appears twice"),
}
