"""The families msport knows, by the name that ``config.json`` gives in ``architectures``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures import decoder, gemma2, gpt_oss, llama, mistral, mixtral, qwen2, qwen3, qwen3_moe
from msport.architectures.config import ModelConfig
from msport.architectures.tensors import Dropped, Weight
from msport.checkpoint import strict_json
from msport.errors import ConfigError, UnsupportedError, quote


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family: how its config is read, which tensors it has, and a tiny config for samples and tests.

    `parse` takes the JSON object and the path it came from; `weights` and `dropped` take the parsed config.
    `models` are published checkpoints of the family and `features` what msport computes of it, both for tables that
    people read. `quantization` lists the ``quant_method`` of ``quantization_config`` that `weights` has recipes for.
    """

    name: str
    model_type: str
    title: str
    parse: Callable[[Mapping[str, Any], Path], ModelConfig]
    weights: Callable[[Any], list[Weight]]
    sample_config: Callable[[], dict[str, Any]]
    models: tuple[str, ...]
    features: tuple[str, ...]
    dropped: Callable[[Any], list[Dropped]] = decoder.dropped
    quantization: tuple[str, ...] = ()


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            gpt_oss.NAME,
            "gpt_oss",
            "gpt-oss",
            gpt_oss.parse,
            gpt_oss.weights,
            gpt_oss.sample_config,
            models=("gpt-oss 20b, 120b",),
            features=("MXFP4 and bfloat16 experts", "attention sinks", "alternating window", "YaRN"),
            quantization=("mxfp4",),
        ),
        Architecture(
            llama.NAME,
            "llama",
            "Llama",
            llama.parse,
            llama.weights,
            llama.sample_config,
            models=("Llama 2", "Llama 3, 3.1, 3.2, 3.3"),
            features=("RoPE linear, YaRN, llama3", "biases", "tied head"),
            quantization=("fp8",),
        ),
        Architecture(
            mistral.NAME,
            "mistral",
            "Mistral",
            mistral.parse,
            mistral.weights,
            mistral.sample_config,
            models=("Mistral 7B v0.1 to v0.3", "Mistral Nemo"),
            features=("window on every layer, or none", "explicit head_dim"),
            quantization=("fp8",),
        ),
        Architecture(
            mixtral.NAME,
            "mixtral",
            "Mixtral",
            mixtral.parse,
            mixtral.weights,
            mixtral.sample_config,
            models=("Mixtral 8x7B, 8x22B",),
            features=("top-k experts, renormalised", "window on every layer, or none"),
        ),
        Architecture(
            qwen2.NAME,
            "qwen2",
            "Qwen2",
            qwen2.parse,
            qwen2.weights,
            qwen2.sample_config,
            models=("Qwen2", "Qwen2.5, -Coder, -Math"),
            features=("biases on q, k, v", "window from a layer on", "YaRN", "tied head"),
            quantization=("fp8",),
        ),
        Architecture(
            qwen3.NAME,
            "qwen3",
            "Qwen3",
            qwen3.parse,
            qwen3.weights,
            qwen3.sample_config,
            models=("Qwen3 0.6B to 32B",),
            features=("normalised queries and keys", "explicit head_dim", "window from a layer on", "YaRN"),
            quantization=("fp8",),
        ),
        Architecture(
            qwen3_moe.NAME,
            "qwen3_moe",
            "Qwen3-MoE",
            qwen3_moe.parse,
            qwen3_moe.weights,
            qwen3_moe.sample_config,
            models=("Qwen3 30B-A3B, 235B-A22B", "Qwen3-Coder 30B-A3B, 480B-A35B"),
            features=("top-k experts, renormalised or not", "dense layers among sparse ones", "YaRN"),
            quantization=("fp8",),
        ),
        Architecture(
            gemma2.NAME,
            "gemma2",
            "Gemma2",
            gemma2.parse,
            gemma2.weights,
            gemma2.sample_config,
            models=("Gemma 2 2B, 9B, 27B",),
            features=("soft-caps on scores and logits", "four norms", "alternating window", "tied head"),
        ),
    )
}


def get_architecture(data: Mapping[str, Any], where: Path) -> Architecture:
    """The family that the config `data`, read from `where`, names.

    Raises `UnsupportedError` with the families there are and the nearest of them, and `ConfigError`.
    """
    names = data.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{where}: 'architectures' must be a list of names; take config.json from the model's repository again"
        )
    for name in names:
        if name in ARCHITECTURES:
            return _checked(ARCHITECTURES[name], data, where)
    supported = ", ".join(f"{known.title} ({known.name})" for known in ARCHITECTURES.values())
    raise UnsupportedError(
        f"{where}: architecture {quote(names[0])} is not supported; msport has: {supported};"
        f" the nearest by its config is {nearest(data).title}"
    )


def nearest(data: Mapping[str, Any]) -> Architecture:
    """The family whose config has the most fields in common with `data`, relative to the fields of both."""

    def likeness(architecture: Architecture) -> float:
        fields = set(architecture.sample_config())
        return len(fields & set(data)) / len(fields | set(data))

    return max(ARCHITECTURES.values(), key=likeness)


def _checked(architecture: Architecture, data: Mapping[str, Any], where: Path) -> Architecture:
    """Transformers goes by `model_type` alone, so the two must not name different families."""
    model_type = data.get("model_type", architecture.model_type)
    if model_type != architecture.model_type:
        raise ConfigError(
            f"{where}: 'architectures' names {architecture.name}, but 'model_type' is {quote(model_type)}, not"
            f" {architecture.model_type!r}; take config.json from the model's repository again"
        )
    return architecture


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON object in ``config.json`` of `folder`; raises `ConfigError` if there is none that is strict JSON."""
    where = folder / "config.json"
    try:
        return strict_json.load_settings(where)
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file; a model folder holds config.json beside its weights") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; take it from the model's repository again") from None


def load_config(folder: Path) -> ModelConfig:
    """The parsed config of the model in `folder`; raises `ConfigError` or `UnsupportedError`."""
    data = read_config(folder)
    where = folder / "config.json"
    return get_architecture(data, where).parse(data, where)
