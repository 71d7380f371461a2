"""Faults to plant in a correct port: in its weights, its config.json, and its implementation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from msport.checkpoint import read_manifest
from msport.checkpoint.dtypes import FLOAT32, Array, cast

DENSE = ("llama", "mistral", "qwen2", "qwen3", "gemma2")
MIXTURES = ("gpt-oss", "mixtral", "qwen3-moe")
ALL = DENSE + MIXTURES
LAYER = "model.layers.1."

Change = Callable[[Array], Array]


@dataclass(frozen=True)
class Fault:
    """One fault, and the places (station and operation) at which a report may correctly locate it.

    `tensors` are changed and `config` fields replaced in the converted folder; `model` gets the loaded model. `path` is
    the only path that fails if the layers are correct.
    """

    name: str
    kind: str
    families: tuple[str, ...]
    places: tuple[tuple[str, str], ...] = ()
    tensors: Mapping[str, Change] | None = None
    config: Mapping[str, Any] | None = None
    model: Callable[[Any], None] | None = None
    path: str | None = None


@contextmanager
def planted(fault: Fault, converted: Path, folder: Path) -> Iterator[Path]:
    """A copy of `converted` at `folder` with `fault` in it, during this context."""
    shutil.copytree(converted, folder)
    if fault.config:
        change_config(folder, fault.config)
    for name, change in (fault.tensors or {}).items():
        change_tensor(folder, name, change)
    if fault.model is None:
        yield folder
        return
    from msport.msmodels import loading

    load = loading.load_model

    def load_faulty(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        fault.model(model)
        return model

    with patch.object(loading, "load_model", load_faulty):
        yield folder


def change_config(folder: Path, fields: Mapping[str, Any]) -> None:
    """Replaces fields of config.json; a dictionary replaces fields within the existing one."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for name, value in fields.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def change_tensor(folder: Path, name: str, change: Change) -> None:
    """Replaces tensor `name` by the result of `change`, which gets it as float32."""
    record = read_manifest(folder).tensors[name]
    ((begin, end),) = record.extents
    with (folder / record.file).open("r+b") as file:
        file.seek(begin)
        stored = np.frombuffer(file.read(end - begin), record.dtype.storage).reshape(record.shape)
        values = np.ascontiguousarray(change(cast(stored, record.dtype, FLOAT32).copy()), np.float32)
        file.seek(begin)
        file.write(cast(values, FLOAT32, record.dtype).tobytes())


def _one_element(values: Array) -> Array:
    values[3, 5] += 4 * values.std()
    return values


def _flip(bit: int, values: Array) -> Array:
    """Flips a bit of one bfloat16, seen as float32."""
    values.view(np.uint32)[5, 3] ^= np.uint32(1 << (16 + bit))
    return values


def _scaled(factor: float, values: Array) -> Array:
    return values * np.float32(factor)


def _rows_swapped(values: Array) -> Array:
    values[[2, 3]] = values[[3, 2]]
    return values


def _heads_swapped(size: int, values: Array) -> Array:
    values[: 2 * size] = np.concatenate([values[size : 2 * size], values[:size]])
    return values


def _interleaved(size: int, values: Array) -> Array:
    """The rows of each head in the order for RoPE of neighbouring pairs, as in original checkpoints."""
    heads = values.reshape(-1, 2, size // 2, *values.shape[1:])
    return np.ascontiguousarray(np.swapaxes(heads, 1, 2)).reshape(values.shape)


def _eight_bits(values: Array) -> Array:
    step = np.abs(values).max(axis=-1, keepdims=True) / 127
    return np.rint(values / step) * step


def _shifted(values: Array) -> Array:
    return np.roll(values, 1, axis=0)


def _experts_swapped(values: Array) -> Array:
    values[[0, 1]] = values[[1, 0]]
    return values


def _halves_swapped(values: Array) -> Array:
    return np.stack([values[..., 1::2], values[..., ::2]], axis=-1).reshape(values.shape)


def _late_decoding(model: Any) -> None:
    """From the 18th new token on, decoding gets the previous token."""
    graphs, decode = model.graphs, model.graphs.decode
    state = {"count": 0, "last": None, "sequences": None}

    def faulty(tokens: Array, sequences: Any) -> Array:
        if sequences is not state["sequences"]:
            state.update(count=0, sequences=sequences)
        state["count"] += 1
        given = state["last"] if state["count"] >= 18 and state["last"] is not None else tokens
        state["last"] = tokens
        return decode(given, sequences)

    graphs.decode = faulty


def _stale_cache(model: Any) -> None:
    """A prompt's second chunk overwrites the first one."""
    graphs, chunks = model.graphs, model.graphs._chunks

    def faulty(prompts: Any) -> Iterator[Any]:
        for ids, start in chunks(prompts):
            yield ids, np.where(start == graphs.cache.chunk, 0, start)

    graphs._chunks = faulty


def _wrong_row(_model: Any) -> None:
    """The fourth row of a batch gets the token of the third."""
    from msport.validate.port import sharing

    with_batch = sharing.with_batch

    def faulty(*arguments: Any) -> Any:
        batch = with_batch(*arguments)
        decode = batch.graphs.decode

        def wrong(tokens: Array, sequences: Any) -> Array:
            changed = np.array(tokens)
            changed[3] = changed[2]
            return decode(changed, sequences)

        batch.graphs.decode = wrong
        sharing.with_batch = with_batch
        return batch

    sharing.with_batch = faulty


def _of(tensor: str, change: Change) -> dict[str, Change]:
    return {LAYER + tensor: change}


QUERIES, KEYS, OUTPUTS = (f"self_attn.{name}_proj.weight" for name in "qko")
GATE, UP, DOWN = (f"mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
WINDOWED = ("gpt-oss", "mistral", "mixtral", "qwen2", "qwen3", "qwen3-moe", "gemma2")
AT_Q, AT_K, AT_O = ((("layers.1", f"{name}_proj"),) for name in "qko")
AT_UP = (("layers.1", "up_proj"),)
AT_ATTENTION = tuple((f"layers.{layer}", "attention") for layer in range(4))
AT_ROTARY = (("layers.0", "rotary_emb"),)
AT_NORM = (("layers.0", "input_layernorm"),)

FAULTS = (
    Fault(
        "one element of o_proj by four deviations",
        "element",
        ("llama", "gemma2", "gpt-oss"),
        AT_O,
        _of(OUTPUTS, _one_element),
    ),
    Fault(
        "an exponent bit of one weight of q_proj",
        "exponent bit",
        ("llama", "qwen3-moe"),
        AT_Q,
        _of(QUERIES, partial(_flip, 8)),
    ),
    Fault("the last bit of one weight of up_proj", "last bit", ("mistral", "qwen2"), AT_UP, _of(UP, partial(_flip, 0))),
    Fault("up_proj times 1.01", "scale", ("llama", "qwen3"), AT_UP, _of(UP, partial(_scaled, 1.01))),
    Fault("two rows of up_proj swapped", "rows", ("mistral", "gemma2"), AT_UP, _of(UP, _rows_swapped)),
    Fault(
        "two heads of q_proj swapped", "heads", ("llama", "mixtral"), AT_Q, _of(QUERIES, partial(_heads_swapped, 32))
    ),
    Fault(
        "keys as in original checkpoints",
        "RoPE layout",
        ("llama", "mistral"),
        AT_K,
        _of(KEYS, partial(_interleaved, 32)),
    ),
    Fault(
        "down_proj rounded to eight bits",
        "eight bits",
        ("qwen3", "gemma2"),
        (("layers.1", "down_proj"),),
        _of(DOWN, _eight_bits),
    ),
    Fault(
        "a norm by one",
        "norm",
        ("gemma2", "llama"),
        (("layers.1", "input_layernorm"),),
        _of("input_layernorm.weight", lambda values: values + 1),
    ),
    Fault(
        "biases of queries dropped",
        "bias",
        ("qwen2", "gpt-oss"),
        AT_Q,
        _of("self_attn.q_proj.bias", partial(_scaled, 0)),
    ),
    Fault(
        "norms of queries doubled",
        "head norm",
        ("qwen3", "qwen3-moe"),
        (("layers.1", "q_norm"),),
        _of("self_attn.q_norm.weight", partial(_scaled, 2)),
    ),
    Fault(
        "sinks dropped",
        "sinks",
        ("gpt-oss",),
        (("layers.1", "attention"),),
        _of("self_attn.sinks", lambda values: values * 0 - 1e4),
    ),
    Fault(
        "sinks of the next head", "sinks", ("gpt-oss",), (("layers.1", "attention"),), _of("self_attn.sinks", _shifted)
    ),
    Fault(
        "router's bias dropped",
        "router",
        ("gpt-oss",),
        (("layers.1", "router"),),
        _of("mlp.router.bias", partial(_scaled, 0)),
    ),
    Fault(
        "rows of the router shifted",
        "router",
        ("mixtral",),
        (("layers.1", "router"),),
        _of("block_sparse_moe.gate.weight", _shifted),
    ),
    Fault(
        "two experts swapped",
        "experts",
        ("gpt-oss",),
        (("layers.1", "experts"),),
        _of("mlp.experts.gate_up_proj", _experts_swapped),
    ),
    Fault(
        "gate and up swapped",
        "gate and up",
        ("gpt-oss",),
        (("layers.1", "experts"),),
        _of("mlp.experts.gate_up_proj", _halves_swapped),
    ),
    Fault(
        "the final norm by one hundredth",
        "final norm",
        ("llama", "gpt-oss"),
        (("lm_head", "norm"),),
        {"model.norm.weight": partial(_scaled, 1.01)},
    ),
    Fault(
        "the head's rows shifted",
        "head",
        ("mistral", "mixtral"),
        (("lm_head", "lm_head"),),
        {"lm_head.weight": _shifted},
    ),
    Fault(
        "epsilon ten times as large", "epsilon", ("gpt-oss", "llama", "qwen3"), AT_NORM, config={"rms_norm_eps": 1e-4}
    ),
    Fault(
        "theta one hundredth higher", "theta", ("mixtral", "qwen3", "gpt-oss"), AT_ROTARY, config={"rope_theta": 1.01e6}
    ),
    Fault("a window one too long", "window", WINDOWED, AT_ATTENTION, config={"sliding_window": 25}),
    Fault("a window one too short", "window", ("mistral", "gemma2"), AT_ATTENTION, config={"sliding_window": 23}),
    Fault("no window", "no window", ("mistral",), AT_ATTENTION, config={"sliding_window": None}),
    Fault("YaRN's bounds rounded", "YaRN", ("gpt-oss",), AT_ROTARY, config={"rope_scaling": {"truncate": True}}),
    Fault("YaRN's factor halved", "YaRN", ("gpt-oss", "qwen2"), AT_ROTARY, config={"rope_scaling": {"factor": 2.0}}),
    Fault("llama3's factor halved", "llama3 RoPE", ("llama",), AT_ROTARY, config={"rope_scaling": {"factor": 16.0}}),
    Fault(
        "a soft-cap of 31 for 30",
        "soft-cap",
        ("gemma2",),
        (("lm_head", "lm_head"),),
        config={"final_logit_softcapping": 31.0},
    ),
    Fault(
        "a soft-cap on scores of 11 for 10",
        "soft-cap",
        ("gemma2",),
        AT_ATTENTION,
        config={"attn_logit_softcapping": 11.0},
    ),
    Fault(
        "the query scale of head_dim",
        "scale of scores",
        ("gemma2",),
        AT_ATTENTION,
        config={"query_pre_attn_scalar": 32},
    ),
    Fault(
        "one expert fewer",
        "top-k",
        ("gpt-oss", "mixtral"),
        tuple((f"layers.{n}", "chosen experts") for n in range(2)),
        config={"num_experts_per_tok": 1},
    ),
    Fault(
        "shares not renormalised",
        "shares",
        ("qwen3-moe",),
        (("layers.1", "routing shares"),),
        config={"norm_topk_prob": False},
    ),
    Fault("the clamp dropped", "clamp", ("gpt-oss",), (("layers.0", "experts"),), config={"swiglu_limit": 1e4}),
    Fault(
        "decoding wrong from the 18th new token", "decoding", ("llama", "gpt-oss"), model=_late_decoding, path="decode"
    ),
    Fault("the fourth row of a batch", "batch", ("mistral", "qwen3-moe"), model=_wrong_row, path="batch"),
    Fault("the second chunk over the first", "chunks", ("qwen2", "gemma2"), (("lm_head", ""),), model=_stale_cache),
)

PUBLISHED_FAULTS = (
    Fault("one element of o_proj by four deviations", "element", (), AT_O, _of(OUTPUTS, _one_element)),
    Fault("an exponent bit of one weight of q_proj", "exponent bit", (), AT_Q, _of(QUERIES, partial(_flip, 8))),
    Fault("up_proj times 1.01", "scale", (), AT_UP, _of(UP, partial(_scaled, 1.01))),
    Fault("down_proj rounded to eight bits", "eight bits", (), (("layers.1", "down_proj"),), _of(DOWN, _eight_bits)),
    Fault("epsilon ten times as large", "epsilon", (), AT_NORM, config={"rms_norm_eps": 1e-4}),
    Fault("theta one hundredth higher", "theta", (), AT_ROTARY, config={"rope_theta": 1.01e5}),
    Fault("decoding wrong from the 18th new token", "decoding", (), model=_late_decoding, path="decode"),
    Fault("the fourth row of a batch", "batch", (), model=_wrong_row, path="batch"),
)
