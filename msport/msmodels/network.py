"""Builds the network of a config, from the file in this folder that its family names."""

from __future__ import annotations

from importlib import import_module

from mindspore.nn.utils import no_init_parameters

from msport.architectures import ARCHITECTURES, ModelConfig
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM
from msport.msmodels.layers.matrices import encode
from msport.sizing.kept import Encodings

_NONE_KEPT: Encodings = {}


def build_network(config: ModelConfig, cache: CacheShape, kept: Encodings = _NONE_KEPT) -> CausalLM:
    """The network for `config` with caches of the shape `cache` and the weights of `kept` in their encodings, the
    others plain in the dtype of the caches. The weights take no memory until they are placed.
    """
    architecture = ARCHITECTURES[config.architecture]
    family = import_module(f"msport.msmodels.{architecture.network}")
    with no_init_parameters():
        network: CausalLM = family.build(config, cache)
        encode(network, architecture.weights(config), kept)
    return network
