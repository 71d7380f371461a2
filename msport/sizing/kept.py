"""Which weights stay in memory as they lie in the checkpoint. Every other weight is decoded when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msport import encodings
from msport.architectures import ARCHITECTURES, ModelConfig
from msport.architectures.tensors import Role, Weight
from msport.checkpoint.index import read_headers
from msport.checkpoint.layout import TensorInfo
from msport.encodings import MXFP4, Encoding, Plain
from msport.errors import CheckpointError
from msport.sizing import cann

# How weights are stored, by name; a weight that is not named is plain in the dtype of computation.
Encodings = Mapping[str, Encoding]

# The packed encodings that operators decode (``msmodels.ops.decoding``).
PACKED = ("mxfp4", "int4", "int8")
# What operators multiply with as it lies; a router is small, and its logits decide.
MATRICES = (Role.LINEAR, Role.EXPERTS, Role.EMBEDDING, Role.HEAD)


def stored_encodings(config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> dict[str, Encoding]:
    """The encoding of each weight of `config` of which `tensors` hold something, by the weight's name."""
    found = ((weight, encodings.find(weight.name, weight.matrix, tensors)) for weight in _weights(config))
    return {weight.name: encoding for weight, encoding in found if encoding is not None}


def encodings_of(folder: Path, config: ModelConfig) -> dict[str, Encoding]:
    """`stored_encodings` of the checkpoint in `folder`; none if it holds no valid checkpoint."""
    try:
        headers = read_headers(folder)
        tensors = {name: info for header in headers.values() for name, info in header.tensors.items()}
        return stored_encodings(config, tensors)
    except (CheckpointError, OSError):
        return {}


def kept_encodings(config: ModelConfig, stored: Encodings, dtype: str, operators: str) -> dict[str, Encoding]:
    """Those of `stored` in which weights stay in memory if `operators` (``portable``, ``cpu`` or ``ascend``) compute in
    `dtype`, in the form in which they take them.
    """
    weights = _weights(config)
    kept = {
        weight.name: stored[weight.name]
        for weight in weights
        if weight.name in stored and _stays(weight, stored[weight.name], dtype, operators)
    }
    return cann.arranged(weights, kept, dtype) if operators == "ascend" else kept


def packed_experts(config: ModelConfig) -> dict[str, Encoding]:
    """MXFP4 for all experts of `config`, as gpt-oss ships them; none for a model without experts."""
    return {weight.name: MXFP4 for weight in _weights(config) if weight.role is Role.EXPERTS}


def expected_encodings(folder: Path, config: ModelConfig, *, packed: bool) -> dict[str, Encoding]:
    """`encodings_of` the folder. With `packed`, if it holds no packed weights, those of a conversion that keeps packed
    experts.
    """
    stored = encodings_of(folder, config)
    return stored | packed_experts(config) if packed and not packed_names(stored) else stored


def is_packed(encoding: Encoding) -> bool:
    """Whether `encoding` is anything but a plain tensor."""
    return not isinstance(encoding, Plain)


def packed_names(kept: Encodings) -> tuple[str, ...]:
    """The names of all packed encodings, sorted."""
    return tuple(sorted({encoding.name for encoding in kept.values() if is_packed(encoding)}))


def _stays(weight: Weight, encoding: Encoding, dtype: str, operators: str) -> bool:
    if isinstance(encoding, Plain):
        widened = operators == "cpu" and dtype == "float32" and weight.role in MATRICES
        return encoding.name == dtype or widened
    # With an order, a layer reorders what it is given; rows of an embedding and experts have no such step.
    ordered = getattr(encoding, "order", False) and weight.role is not Role.LINEAR
    return encoding.name in PACKED and weight.role in MATRICES and not ordered


def _weights(config: ModelConfig) -> list[Weight]:
    return ARCHITECTURES[config.architecture].weights(config)
