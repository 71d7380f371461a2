"""Writes a random checkpoint: config, weights in shards, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from msport.architectures import ARCHITECTURES, Architecture, ModelConfig, Role, Weight
from msport.architectures.fields import LARGEST
from msport.checkpoint import ShardWriter, TensorInfo, index_document, safetensors, write_atomically
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.checkpoint.index import INDEX_NAME
from msport.convert.output_folder import Staging, check_space, resolve_output
from msport.convert.shards import cut, shard_names
from msport.encodings import MXFP4, Encoding, Plain
from msport.errors import UsageError, quote
from msport.progress import Counter, Progress
from msport.sample.chat import ChatFormat, chat_format
from msport.sample.random_weights import Normal, distribution, random_pieces
from msport.sample.tokenizers import tokenizer_files
from msport.sizing.units import parse_size

# The encoding of experts, and that of all other weights.
DTYPES: dict[str, tuple[Encoding, Plain]] = {
    MXFP4.name: (MXFP4, Plain(BFLOAT16)),
    **{dtype.name: (Plain(dtype), Plain(dtype)) for dtype in (BFLOAT16, FLOAT16, FLOAT32)},
}

# Several shards, as in real models, and none larger than on the Hub.
_SHARDS = 4
_MAX_SHARD_NBYTES = 5 * 10**9


def write_sample(
    architecture: str,
    folder: str | Path,
    *,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a random checkpoint of a family (such as ``gpt-oss``) into `folder`, which must be new or empty; returns
    its description.

    `overrides` replaces fields of the family's sample config; the list of layer types adapts to a new number of layers.
    `dtype` is that of the weights: ``mxfp4`` (packed experts, everything else bfloat16; the default if the family ships
    so), bfloat16, float16 or float32. `max_shard_size` is in bytes or text such as ``"5GB"``, by default a quarter of
    the weights. The same arguments give the same bytes. `progress` is called while the weights are written.

    Raises UsageError, also for an override that the family does not read, ConfigError and OutputError.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}; give 0 or a positive integer")
    family = find_architecture(architecture)
    dtype = dtype or _own_dtype(family)
    config = _config(family, dtype, overrides or {})
    chat = chat_format(family.model_type)
    parsed = _parse(family, config, overrides or {}, Path(folder) / "config.json")
    files, ids = tokenizer_files(chat, parsed.vocab_size)
    config |= {"eos_token_id": ids[chat.eos], "pad_token_id": ids[chat.pad]}
    files |= {"config.json": _json(config), "generation_config.json": _json(_generation_config(chat, ids))}
    tensors = [tensor for weight in family.weights(parsed) for tensor in _hub_tensors(weight, dtype)]
    tensors.sort(key=lambda tensor: tensor.name)
    choose = partial(distribution, model_type=family.model_type, tied=parsed.tie_word_embeddings)
    with Staging(resolve_output(Path(folder), "name another folder")) as staging:
        staging.clear()
        check_space(staging.output, sum(tensor.nbytes for tensor in tensors))
        counter = Counter("write", sum(tensor.nbytes for tensor in tensors), progress)
        _write_weights(tensors, choose, staging.folder, seed, _shard_nbytes(tensors, max_shard_size), counter)
        for name, text in files.items():
            write_atomically(staging.folder / name, text)
        staging.commit()
    return Path(folder)


def find_architecture(name: str) -> Architecture:
    """The family with the title (``gpt-oss``), model type or architecture `name`. Raises UsageError that lists all
    titles.
    """
    for family in ARCHITECTURES.values():
        if name.lower() in (family.title.lower(), family.model_type, family.name.lower()):
            return family
    titles = ", ".join(family.title for family in ARCHITECTURES.values())
    raise UsageError(f"no sample of {name!r}; choose one of: {titles}")


def _config(family: Architecture, dtype: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    if dtype not in DTYPES or (dtype == MXFP4.name and _own_dtype(family) != dtype):
        raise UsageError(f"no sample of {family.title} in {dtype!r}; choose bfloat16, float16 or float32")
    config = {**family.sample_config(), **overrides}
    if dtype != MXFP4.name:
        config.pop("quantization_config", None)
        config["torch_dtype"] = dtype
    layer_types, layers = config.get("layer_types"), config.get("num_hidden_layers")
    if layer_types and isinstance(layers, int) and "layer_types" not in overrides:
        # Too many layers are refused when the config is parsed.
        config["layer_types"] = list(islice(cycle(layer_types), max(0, min(layers, LARGEST["num_hidden_layers"]))))
    return config


def _parse(family: Architecture, config: Mapping[str, Any], overrides: Mapping[str, Any], where: Path) -> ModelConfig:
    """Parse `config`. Raises UsageError for an override that the family's parser does not read."""
    looked_at = _LookedAt(config)
    parsed = family.parse(looked_at, where)
    known = {*family.sample_config(), *looked_at.names}
    for name in overrides:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"{where.name} of a sample lists the fields"
            raise UsageError(f"{quote(name)} is not a field of {family.title}, and would have no effect; {meant}")
    return parsed


class _LookedAt(dict[str, Any]):
    """A config that records which of its fields were read."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def _generation_config(chat: ChatFormat, ids: Mapping[str, int]) -> dict[str, Any]:
    bos = {"bos_token_id": ids[chat.bos]} if chat.bos else {}
    stops = [ids[token] for token in chat.stops]
    return {**bos, "do_sample": True, "eos_token_id": stops, "pad_token_id": ids[chat.pad]}


def _own_dtype(family: Architecture) -> str:
    """The dtype in which the family ships."""
    return str(family.sample_config().get("quantization_config", {}).get("quant_method", BFLOAT16.name))


def _hub_tensors(weight: Weight, dtype: str) -> list[TensorInfo]:
    """The Hub's tensors for `weight`; their places are not known yet."""
    experts, others = DTYPES[dtype]
    encoding = experts if weight.role == Role.EXPERTS else others
    parts = [part for matrix in weight.forms[0].matrices for part in encoding.parts(matrix.name, matrix.shape)]
    return [TensorInfo(part.name, part.dtype, part.shape, ()) for part in parts]


def _shard_nbytes(tensors: Sequence[TensorInfo], max_shard_size: int | str | None) -> int:
    if max_shard_size is not None:
        return parse_size(max_shard_size)
    return min(-(-sum(tensor.nbytes for tensor in tensors) // _SHARDS), _MAX_SHARD_NBYTES)


def _write_weights(
    tensors: Sequence[TensorInfo],
    choose: Callable[[str], Normal],
    folder: Path,
    seed: int,
    shard_nbytes: int,
    counter: Counter,
) -> None:
    groups = cut(tensors, shard_nbytes)
    files = shard_names(len(groups), "safetensors")
    for file, group in zip(files, groups, strict=True):
        layout = safetensors.plan_layout(((each.name, each.dtype, each.shape) for each in group), {"format": "pt"})
        with ShardWriter(folder / file, layout) as writer:
            for tensor in group:
                pieces = random_pieces(tensor.name, tensor.dtype, tensor.shape, choose(tensor.name), seed)
                for offset, piece in pieces:
                    writer.write(tensor.name, offset, piece)
                    counter.add(piece.nbytes, tensor.name)
    if len(groups) > 1:
        weight_map = {tensor.name: file for file, group in zip(files, groups, strict=True) for tensor in group}
        total = sum(tensor.nbytes for tensor in tensors)
        write_atomically(folder / INDEX_NAME, index_document(weight_map, total))


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
