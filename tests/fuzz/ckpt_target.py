"""``ckpt.read_header`` beside Google's protobuf: what is accepted is what that, and so MindSpore's loader, reads."""

from __future__ import annotations

import zlib
from itertools import groupby
from pathlib import Path
from typing import Any

from checkpoint.attacks.ckpt_files import ATTACKS, GOOD, simple
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

from fuzz.messages import assert_fit_for_a_line
from msport.checkpoint import ckpt
from msport.checkpoint.layout import Header
from msport.errors import CheckpointError

WORDS = [b"Float32", b"BFloat16", b"Int8", b"Bool", b"str", b"crc_num", b"\x0a", b"\x12", b"\x1a", b"\x08", b"\x10"]
WORDS += [
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x80\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x08\x00",
    b"\x0a\x01\x04",
]


def seeds() -> list[bytes]:
    files = [GOOD, GOOD + simple(tag=b"v", dims=(2, 1), kind=b"BFloat16"), simple(dims=(2,)) * 2, simple(dims=())]
    files += [GOOD + simple(tag=b"s", kind=b"str", dims=(0,), content="é".encode("utf-32-le")), simple(dims=(0,))]
    files += [GOOD + b"crc_num" + zlib.crc32(GOOD).to_bytes(10, "big")]
    return files + [attack.content for attack in ATTACKS.values() if len(attack.content) < 2000]


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        header = ckpt.read_header(path)
    except CheckpointError as error:
        assert_fit_for_a_line(str(error))
        return
    assert described(header, content) == read_by_protobuf(content)


def described(header: Header, content: bytes) -> dict[str, Any]:
    """Name to type, shape and bytes, and to its text where it is a string."""
    tensors = {
        name: (tensor.dtype.ckpt, tensor.shape, b"".join(content[begin:end] for begin, end in tensor.extents))
        for name, tensor in header.tensors.items()
    }
    return {**tensors, **header.metadata}


def read_by_protobuf(content: bytes) -> dict[str, Any]:
    if content[-17:].startswith(b"crc_num"):
        content = content[:-17]
    found: dict[str, Any] = {}
    for tag, values in groupby(CHECKPOINT.FromString(content).value, key=lambda value: value.tag):
        tensors = [value.tensor for value in values]
        first, data = tensors[0], b"".join(tensor.tensor_content for tensor in tensors)
        shape = tuple(first.dims)
        assert tag not in found
        assert {(tensor.tensor_type, tuple(tensor.dims)) for tensor in tensors} == {(first.tensor_type, shape)}
        if first.tensor_type == "str":
            found[tag] = data.decode("utf-32-le").rstrip("\0")
        else:
            # MindSpore takes [0] for a scalar, which has an element.
            found[tag] = first.tensor_type, () if shape == (0,) and data else shape, data
    return found


def _checkpoint_message() -> Any:
    """The message type of MindSpore's ``checkpoint.proto``, as far as msport reads it."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="checkpoint.proto", package="fuzz", syntax="proto2")
    messages = {
        "Checkpoint": [("value", 1, field.LABEL_REPEATED, field.TYPE_MESSAGE, "Value")],
        "Value": [
            ("tag", 1, field.LABEL_REQUIRED, field.TYPE_STRING, ""),
            ("tensor", 2, field.LABEL_REQUIRED, field.TYPE_MESSAGE, "TensorProto"),
        ],
        "TensorProto": [
            ("dims", 1, field.LABEL_REPEATED, field.TYPE_INT64, ""),
            ("tensor_type", 2, field.LABEL_REQUIRED, field.TYPE_STRING, ""),
            ("tensor_content", 3, field.LABEL_REQUIRED, field.TYPE_BYTES, ""),
        ],
    }
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for name, number, label, kind, type_name in fields:
            kinds = {"type_name": f".fuzz.{type_name}"} if type_name else {}
            described.field.add(name=name, number=number, label=label, type=kind, **kinds)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("fuzz.Checkpoint"))


CHECKPOINT = _checkpoint_message()
