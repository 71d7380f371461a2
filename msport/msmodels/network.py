"""Builds the network of a config, from the file in this folder that its family names."""

from __future__ import annotations

from importlib import import_module

from mindspore.nn.utils import no_init_parameters

from msport.architectures import ARCHITECTURES, ModelConfig
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM


def build_network(config: ModelConfig, cache: CacheShape) -> CausalLM:
    """The network for `config` with caches of the shape `cache`. Its weights take no memory until they are placed."""
    family = import_module(f"msport.msmodels.{ARCHITECTURES[config.architecture].network}")
    with no_init_parameters():
        network: CausalLM = family.build(config, cache)
    return network
