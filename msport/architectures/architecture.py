"""What msport knows of one family; each family's file states its own as `FAMILY`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures import decoder
from msport.architectures.config import ModelConfig
from msport.architectures.tensors import Dropped, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One family: how its config is read, which tensors it has, which network computes it, and a tiny config.

    `name` is what ``config.json`` gives in ``architectures``, and `title` what people call it. `parse` takes the JSON
    object and the path it came from; `weights` and `dropped` take the parsed config. `quantization` lists the
    ``quant_method`` of ``quantization_config`` that `weights` has recipes for. `network` is the file of
    ``msport.msmodels`` whose function `build` makes the graph-mode model.
    """

    name: str
    model_type: str
    title: str
    parse: Callable[[Mapping[str, Any], Path], ModelConfig]
    sample_config: Callable[[], dict[str, Any]]
    weights: Callable[[Any], list[Weight]] = decoder.weights
    dropped: Callable[[Any], list[Dropped]] = decoder.dropped
    quantization: tuple[str, ...] = ()
    network: str = "decoder"
