"""Loads a converted checkpoint as a model in graph mode."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms

from msport.architectures.stated_ids import read_stop_ids
from msport.arguments import checked
from msport.checkpoint import dtypes
from msport.checkpoint.index import open_checkpoint
from msport.errors import UsageError
from msport.msmodels import ops
from msport.msmodels.computation import DTYPES, choose_computation, warn_of_overflow
from msport.msmodels.engine import TURN, Graphs
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.model import LanguageModel
from msport.msmodels.network import build_network
from msport.msmodels.weights import place_weights
from msport.progress import Phases


@checked
def load_model(
    folder: str | Path,
    dtype: str | None = None,
    max_length: int = 4096,
    batch_size: int = 1,
    prefill_chunk: int = 128,
    phases: Phases | None = None,
) -> LanguageModel:
    """Loads the converted checkpoint in `folder` for MindSpore's graph mode.

    `dtype` is that of weights and caches, None the device's best: float32 on CPU, bfloat16 on Ascend (float16 on chips
    without it). ``"mxfp4"`` keeps experts packed as the checkpoint has them, and computes in the device's best; None
    means that where a checkpoint was converted so. `max_length`, at most the model's own, and `batch_size` fix the size
    of the caches; prompts run in chunks of `prefill_chunk` tokens. `phases` calls and times the work as "loading";
    graphs are compiled by ``warm_up`` or when they are first needed. Raises `CheckpointError`, `ConfigError`,
    `UnsupportedError` or `UsageError`.
    """
    folder = Path(folder)
    config, dtype = choose_computation(folder, dtype)
    stop_ids = read_stop_ids(folder)
    warn_of_overflow(config, dtype)
    for name, value in (("max_length", max_length), ("batch_size", batch_size), ("prefill_chunk", prefill_chunk)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")
    max_length = min(max_length, config.max_position_embeddings)
    with (phases or Phases()).phase("loading"), TURN:
        device: str = ms.get_context("device_target")
        cache = CacheShape(batch_size, max_length, min(prefill_chunk, max_length), DTYPES[dtype])
        configure(device)
        operators = ops.bind(device, cache.dtype)
        network = build_network(config, cache)
        with open_checkpoint(folder) as checkpoint:
            place_weights(network, config, checkpoint, dtypes.by_name(dtype))
        return LanguageModel(
            folder,
            config,
            Graphs(network, cache, operators),
            stop_ids=stop_ids,
            dtype=dtype,
            device=device,
        )


def configure(device: str) -> None:
    """Sets MindSpore up for graphs on `device`; for the whole process."""
    # STRICT refuses what would fall out of the graph into the Python interpreter, at a cost nobody sees.
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    if device == "CPU":
        # Launching in the caller's thread: MindSpore's own launching threads would take turns with the kernels' on few
        # cores.
        ms.runtime.launch_blocking()
