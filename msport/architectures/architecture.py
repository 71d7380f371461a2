"""The description of one family; the file of each family defines its own as `FAMILY`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures import shared_rows
from msport.architectures.config import ModelConfig
from msport.architectures.tensors import Dropped, Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One family: the parser of its config, its tensors, its network, and a tiny config.

    `name` is its name in ``architectures`` of ``config.json``, and `title` its common name. `parse` takes the JSON
    object and the path it came from; `weights` and `dropped` take the parsed config. `network` is the file of
    ``msport.msmodels`` whose function `build` makes the graph-mode model.
    """

    name: str
    model_type: str
    title: str
    parse: Callable[[Mapping[str, Any], Path], ModelConfig]
    sample_config: Callable[[], dict[str, Any]]
    weights: Callable[[Any], list[Weight]] = shared_rows.weights
    dropped: Callable[[Any], list[Dropped]] = shared_rows.dropped
    network: str = "plain_decoder"
