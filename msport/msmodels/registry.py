"""Which graph-mode model implements which architecture."""

from __future__ import annotations

from importlib import import_module

from msport.architectures import ModelConfig
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM

# Architecture to its file in this folder, where a class of the architecture's own name builds the network.
MODELS = {
    "Gemma2ForCausalLM": "gemma2",
    "GptOssForCausalLM": "gpt_oss",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
}


def build_network(config: ModelConfig, cache: CacheShape) -> CausalLM:
    """The network for `config`, its weights without memory."""
    module = import_module(f"msport.msmodels.{MODELS[config.architecture]}")
    network: CausalLM = getattr(module, config.architecture)(config, cache)
    return network
