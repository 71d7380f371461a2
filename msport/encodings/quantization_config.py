"""``quantization_config`` of a ``config.json``, for GPTQ, AWQ and compressed-tensors: what is read, what is refused.

The tensors of a weight say nearly all of its encoding. The config adds what they do not: which zero point GPTQ stores,
and whether to expect zero points and act-order before the tensors are read. It also names what would be computed
wrongly, or only roughly, if it were ignored. That is refused with the reason.

Sources: ``AwqConfig`` and ``GPTQConfig`` in ``transformers/utils/quantization_config.py``,
``gptqmodel/quantization/config.py``, ``compressed_tensors/quantization/quant_config.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msport.encodings.compressed_tensors import CompressedTensors
from msport.encodings.encoding import Encoding
from msport.encodings.gptq import BITS, Gptq
from msport.encodings.packed_words import Regroupable
from msport.errors import CheckpointError, ConfigError, UnsupportedError, quote

# The tensor by which an encoding is found.
_FIRST_TENSOR = {"gptq": "qweight", "awq": "qweight", "compressed-tensors": "weight_packed"}
# Of GPTQ, what is subtracted from a zero point before it is stored.
_ZERO_SHIFTS = {"gptq": 1, "gptq_v2": 0}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How some layers are quantised: codes of `bits`, and `group` inputs per scale, -1 for all inputs."""

    bits: int
    group: int
    symmetric: bool = False

    def __str__(self) -> str:
        return f"{self.bits} bits, " + ("one scale per output" if self.group == -1 else f"groups of {self.group}")


@dataclass(frozen=True, slots=True)
class Quantization:
    """What the file `where` says of its weights. `act_order` is None if it does not say that."""

    method: str
    where: Path
    schemes: tuple[Scheme, ...]
    act_order: bool | None = None
    zero_shift: int = 0

    def adopt(self, encoding: Encoding, weight: str, inputs: int) -> Encoding:
        """The encoding of `weight` with what the tensors do not say; a plain one stays as it is.

        Raises ConfigError if the tensors and the config contradict each other.
        """
        if not isinstance(encoding, Regroupable):
            return encoding
        if encoding.name != self.method:
            raise self._contradiction(weight, f"in {encoding.name}", self.method)
        found = Scheme(encoding.grouped().bits, encoding.group)
        fitting = [scheme for scheme in self.schemes if _fits(scheme, found, inputs)]
        if not fitting:
            raise self._contradiction(weight, f"with {found}", " or ".join(map(str, self.schemes)))
        if isinstance(encoding, Gptq):
            return self._adopt_gptq(encoding, weight, fitting[0].symmetric)
        asymmetric = not any(scheme.symmetric for scheme in fitting)
        if isinstance(encoding, CompressedTensors) and asymmetric and encoding.zero_dtype is None:
            raise self._contradiction(weight, "without zero points", "that they are asymmetric")
        return encoding

    def without_tensors(self) -> CheckpointError:
        """The error for a checkpoint none of whose weights is in the encoding that the config names."""
        return CheckpointError(
            f"{self.where}: quantization_config says {self.method}, but no tensor ends in"
            f" .{_FIRST_TENSOR[self.method]}; download the model again, or remove quantization_config if the weights"
            " are not quantized"
        )

    def _adopt_gptq(self, encoding: Gptq, weight: str, symmetric: bool) -> Gptq:
        if self.act_order and not encoding.index:
            raise self._contradiction(weight, "without g_idx", "desc_act: true")
        act_order = encoding.index and self.act_order is not False
        return replace(encoding, act_order=act_order, symmetric=symmetric, zero_shift=self.zero_shift)

    def _contradiction(self, weight: str, found: str, said: str) -> ConfigError:
        return ConfigError(
            f"{self.where}: the tensors of {quote(weight)} are {found}, but quantization_config says {said}; check that"
            " config.json and weights belong together"
        )


def undeclared(encoding: Encoding, weight: str, where: Path) -> ConfigError:
    """The error for a quantised weight if the config, the file `where`, has no ``quantization_config``."""
    return ConfigError(
        f"{where}: the tensors of {quote(weight)} are in {encoding.name}, but there is no quantization_config, without"
        " which their zero points are ambiguous; take the config.json that belongs to the weights"
    )


def read_quantization(config: Mapping[str, Any], where: Path) -> Quantization | None:
    """What `config`, the file `where`, says of GPTQ, AWQ or compressed-tensors; None if it names none of them.

    Raises UnsupportedError with the reason for what msport does not compute exactly, and ConfigError for wrong values.
    """
    data = config.get("quantization_config")
    if not isinstance(data, Mapping):
        return None
    method = data.get("quant_method", data.get("method"))
    read = _READERS.get(method) if isinstance(method, str) else None
    return None if read is None else read(_Fields(data, where))


@dataclass(frozen=True, slots=True)
class _Fields:
    data: Mapping[str, Any]
    where: Path
    path: str = "quantization_config"

    def inner(self, name: str) -> _Fields:
        """The object `name`; empty if it is null or absent."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(name, value, "an object")
        return _Fields(value or {}, self.where, f"{self.path}.{name}")

    def integer(self, *names: str, default: int | None = None) -> int:
        """The first of `names` that is there."""
        name = next((name for name in names if self.data.get(name) is not None), names[0])
        value = self.data.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, value, "an integer")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.data.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, value, "true or false")
        return value

    def word(self, name: str, default: str) -> str:
        """A text in lower case."""
        value = self.data.get(name) or default
        if not isinstance(value, str):
            raise self.error(name, value, "a text")
        return value.lower()

    def scheme(self, bits: int, group: int, symmetric: bool) -> Scheme:
        if bits not in BITS:
            raise self.refusal(f"codes of {bits} bits; msport reads 4 and 8")
        if group != -1 and group < 1:
            raise self.error("group_size", group, "a positive number, or -1 for one scale per output")
        return Scheme(bits, group, symmetric)

    def refuse_set(self, **reasons: str) -> None:
        """Refuses each field of `reasons` that is there and neither null, false nor empty."""
        for name, reason in reasons.items():
            if self.data.get(name):
                raise self.refusal(f"{name}: {reason}")

    def error(self, name: str, value: Any, expected: str) -> ConfigError:
        return ConfigError(f"{self.where}: {self.path}.{name} must be {expected}, not {quote(value)}")

    def refusal(self, reason: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.where}: {self.path} has {reason}. Take another quantization of the model, or the original"
        )


def _read_gptq(fields: _Fields) -> Quantization:
    layout = fields.word("checkpoint_format", fields.word("format", "gptq"))
    if layout not in _ZERO_SHIFTS:
        raise fields.refusal(f"checkpoint_format {quote(layout)}; msport reads {' and '.join(_ZERO_SHIFTS)}")
    words = fields.word("pack_dtype", "int32")
    if words != "int32":
        raise fields.refusal(f"pack_dtype {quote(words)}; msport reads int32")
    fields.refuse_set(
        dynamic="layers quantized in different ways, whose exceptions msport does not read",
        is_marlin_format="the order of weights that one kernel needs; msport reads checkpoint_format gptq and gptq_v2",
        rotation="activations that must be rotated, which msport does not do",
        adapter="a correction in low rank beside the weights, which msport does not add",
    )
    scheme = fields.scheme(fields.integer("bits"), fields.integer("group_size", default=-1), fields.flag("sym") is True)
    return Quantization("gptq", fields.where, (scheme,), fields.flag("desc_act"), _ZERO_SHIFTS[layout])


def _read_awq(fields: _Fields) -> Quantization:
    layout = fields.word("version", fields.word("checkpoint_format", fields.word("format", "gemm")))
    if layout != "gemm":
        raise fields.refusal(f"version {quote(layout)}; msport reads gemm, the layout of nearly all AWQ checkpoints")
    backend = fields.word("backend", "autoawq")
    if backend == "llm-awq":
        raise fields.refusal("backend 'llm-awq', whose layout is not that of autoawq; msport reads autoawq's gemm")
    if fields.flag("zero_point") is False:
        raise fields.refusal("zero_point false, which autoawq's gemm layout does not have")
    bits = fields.integer("bits", "w_bit", default=4)
    if bits != 4:
        raise fields.refusal(f"codes of {bits} bits; AWQ's gemm layout has 4")
    return Quantization(
        "awq", fields.where, (fields.scheme(4, fields.integer("group_size", "q_group_size", default=128), False),)
    )


def _read_compressed_tensors(fields: _Fields) -> Quantization:
    _refuse_format(fields)
    fields.refuse_set(
        kv_cache_scheme="a quantized key-value cache, which msport does not compute",
        transform_config="activations that must be transformed, which msport does not do",
    )
    if fields.inner("sparsity_config").word("format", "dense") != "dense":
        raise fields.refusal("sparsity_config: weights that are stored sparse, such as 2:4; msport reads dense ones")
    groups = fields.inner("config_groups")
    schemes = tuple(_compressed_scheme(groups.inner(name)) for name in groups.data)
    if not schemes:
        raise fields.error("config_groups", dict(groups.data), "an object with at least one group of layers")
    return Quantization("compressed-tensors", fields.where, schemes)


def _compressed_scheme(group: _Fields) -> Scheme:
    _refuse_format(group)
    group.refuse_set(
        input_activations="activations are quantized as well, which msport does not compute",
        output_activations="outputs are quantized as well, which msport does not compute",
    )
    weights = group.inner("weights")
    if weights.word("type", "int") != "int":
        raise weights.refusal(f"type {quote(weights.data['type'])}; msport reads integers in the format pack-quantized")
    if weights.data.get("dynamic"):
        raise weights.refusal("dynamic scales; msport reads stored ones")
    size = weights.integer("group_size", default=-1) if weights.data.get("group_size") is not None else None
    strategy = weights.word("strategy", "tensor" if size is None else "channel" if size == -1 else "group")
    if strategy not in ("group", "channel"):
        raise weights.refusal(f"strategy {quote(strategy)}; msport reads group and channel")
    if strategy == "group" and size is None:
        raise weights.error("group_size", None, "an integer")
    scale_count = -1 if strategy == "channel" or size is None else size
    return weights.scheme(weights.integer("num_bits", default=8), scale_count, weights.flag("symmetric") is not False)


def _refuse_format(fields: _Fields) -> None:
    layout = fields.word("format", "pack-quantized")
    if layout != "pack-quantized":
        raise fields.refusal(f"format {quote(layout)}; msport reads pack-quantized (w4a16, w8a16)")


_READERS = {"gptq": _read_gptq, "awq": _read_awq, "compressed-tensors": _read_compressed_tensors}


METHODS = tuple(_READERS)


def _fits(scheme: Scheme, found: Scheme, inputs: int) -> bool:
    return scheme.bits == found.bits and found.group == (inputs if scheme.group == -1 else scheme.group)
