"""The supported families, by the name in ``architectures`` of ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.architectures import gemma2, gpt_oss, llama, mistral, mixtral, qwen2, qwen3, qwen3_moe
from msport.architectures.architecture import Architecture
from msport.architectures.config import ModelConfig
from msport.checkpoint import strict_json
from msport.errors import ConfigError, UnsupportedError, quote

_MODULES = (gpt_oss, llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2)

ARCHITECTURES: dict[str, Architecture] = {module.FAMILY.name: module.FAMILY for module in _MODULES}


def get_architecture(data: Mapping[str, Any], where: Path) -> Architecture:
    """The family named by the config `data`, which was read from `where`.

    Raises `ConfigError`, and `UnsupportedError` that names the supported families and the most similar one.
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
    """The family whose config shares the most fields with `data`, relative to the fields of both."""

    def likeness(architecture: Architecture) -> float:
        fields = set(architecture.sample_config())
        return len(fields & set(data)) / len(fields | set(data))

    return max(ARCHITECTURES.values(), key=likeness)


def _checked(architecture: Architecture, data: Mapping[str, Any], where: Path) -> Architecture:
    """Checks that `architectures` and `model_type` name the same family: Transformers uses only `model_type`."""
    model_type = data.get("model_type", architecture.model_type)
    if model_type != architecture.model_type:
        raise ConfigError(
            f"{where}: 'architectures' names {architecture.name}, but 'model_type' is {quote(model_type)}, not"
            f" {architecture.model_type!r}; take config.json from the model's repository again"
        )
    return architecture


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON object in ``config.json`` of `folder`. Raises `ConfigError` if it is missing or not strict JSON."""
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
