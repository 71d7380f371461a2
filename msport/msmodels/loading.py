"""Loads a converted checkpoint as a model in graph mode."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms

from msport.architectures.stated_ids import read_stop_ids
from msport.arguments import checked, require_counts
from msport.checkpoint import dtypes
from msport.checkpoint.index import open_checkpoint
from msport.msmodels import ops
from msport.msmodels.computation import DTYPES, choose_computation, keep, warn_of_overflow
from msport.msmodels.engine import TURN, Graphs
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.model import LanguageModel
from msport.msmodels.network import build_network
from msport.msmodels.weights import place_weights
from msport.progress import Phases
from msport.sizing.costs import PREFILL_CHUNK


@checked
def load_model(
    folder: str | Path,
    dtype: str | None = None,
    max_length: int = 4096,
    batch_size: int = 1,
    prefill_chunk: int = PREFILL_CHUNK,
    phases: Phases | None = None,
) -> LanguageModel:
    """Loads the converted checkpoint in `folder` for MindSpore's graph mode.

    `dtype` is that of computation and of caches. None means the device's best: float32 on CPU, bfloat16 on Ascend
    (float16 on chips without bfloat16). Weights stay as they lie in the files, mapped, if the device's operators take
    them so; the others are decoded to `dtype` once. ``"mxfp4"`` is the device's best dtype too, but only for a
    checkpoint with packed weights. `max_length` (tokens, at most the model's own limit) and `batch_size`
    (sequences) fix the size of the caches. Prompts run in chunks of `prefill_chunk` tokens. `phases` reports and times
    the work as "loading". Graphs are compiled by ``warm_up`` or at first use. Raises `CheckpointError`, `ConfigError`,
    `UnsupportedError` or `UsageError`.
    """
    folder = Path(folder)
    config, dtype = choose_computation(folder, dtype)
    stop_ids = read_stop_ids(folder)
    warn_of_overflow(config, dtype)
    require_counts(max_length=max_length, batch_size=batch_size, prefill_chunk=prefill_chunk)
    max_length = min(max_length, config.max_position_embeddings)
    with (phases or Phases()).phase("loading"), TURN:
        device: str = ms.get_context("device_target")
        cache = CacheShape(batch_size, max_length, min(prefill_chunk, max_length), DTYPES[dtype])
        configure(device)
        operators = ops.bind(device, cache.dtype)
        with open_checkpoint(folder) as checkpoint:
            kept = keep(config, checkpoint, dtype, operators)
            network = build_network(config, cache, kept)
            place_weights(network, config, checkpoint, dtypes.by_name(dtype), kept)
        return LanguageModel(
            folder,
            config,
            Graphs(network, cache, operators),
            stop_ids=stop_ids,
            dtype=dtype,
            device=device,
            kept=kept,
        )


def configure(device: str) -> None:
    """Configures MindSpore for graphs on `device`, for the whole process."""
    # STRICT refuses code that would run outside the graph in the Python interpreter, which would be slow without a
    # message.
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    if device == "CPU":
        # Launch kernels in the caller's thread. On few cores, MindSpore's launching threads would compete with those of
        # the kernels.
        ms.runtime.launch_blocking()
