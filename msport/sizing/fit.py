"""Estimates the memory of a model before it runs: weights, caches, and the workspace for compiling and computing.

All commands use this estimate: ``doctor`` for its advice, ``bench`` to leave out what cannot run, and ``validate`` to
stream a model that would not fit.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msport.architectures import ModelConfig
from msport.sizing.costs import PREFILL_CHUNK, Costs, cache_length

# Memory of MindSpore, NumPy and Python with both graphs of a small model, and of each further layer's graphs. Measured
# on the CPU: 560 to 605 MB (the most with Python 3.12), and 4 MB.
RUNTIME_NBYTES = 65 * 10**7
LAYER_NBYTES = 5 * 10**6

# The C++ kernels compute in float32. In float16, or if they are switched off, portable operators are used, and their
# results stay in memory for each layer: 20 to 50 MB per layer, measured with 2 to 16 layers. In float16, processes also
# needed up to twice the weights more, as if the products kept float32 copies.
PORTABLE_RUNTIME_NBYTES = 7 * 10**8
PORTABLE_LAYER_NBYTES = 5 * 10**7
_HALF_COPIES = 2

# Measured copies of a chunk's scores with all slots that portable attention holds in each layer: plain, with sinks, and
# with a soft-cap.
_SCORE_COPIES, _SINK_COPIES, _CAP_COPIES = 6, 13, 57

# Activations are computed in float32, or kept in addition to their cast.
_ACTIVATION_SIZE = 4

# Copies of a chunk's hidden states, and of its widest activation, that exist at the same time.
_HIDDEN_COPIES = 6
_WIDE_COPIES = 4

# Copies of logits where every token's are compared, some of them in float64.
_LOGIT_COPIES = 8

# PyTorch and Transformers beside MindSpore: a verdict on a tiny model held 920 to 960 MB at most. On a model with
# 0.65 GB of weights it held 2.6 GB, of which the estimate says 2.8.
PYTORCH_NBYTES = 4 * 10**8

# The reference computes at most so many bytes of logits at a time, and of attention scores.
_HEAD_NBYTES = 1 << 28
_SCORES_NBYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a loaded model needs: `weights`, `caches`, and the `workspace` of runtime, graphs and activations."""

    weights: int
    caches: int
    workspace: int

    @property
    def total(self) -> int:
        """Bytes of everything together."""
        return self.weights + self.caches + self.workspace


def estimate(
    costs: Costs,
    max_length: int,
    batch: int,
    *,
    portable: bool = False,
    on_device: bool = False,
    every_logit: bool = False,
) -> Need:
    """The bytes that the model of `costs` needs to run `batch` sequences with caches of `max_length` positions each.

    `portable`: only portable operators are used, see `only_portable`. `on_device`: the model runs in a device's own
    memory, else on the CPU in the host's memory. `every_logit`: the logits of all tokens are computed and compared, as
    ``validate`` does; otherwise those of the last token of each sequence.
    """
    chunk = min(PREFILL_CHUNK, max_length)
    config, rows = costs.config, batch * chunk
    portable = portable or (costs.dtype != "float32" and not on_device)
    activations = rows * (_HIDDEN_COPIES * config.hidden_size + _WIDE_COPIES * costs.widest)
    activations += config.vocab_size * (_LOGIT_COPIES * rows if every_logit else 2 * batch)
    if on_device and (portable or _caps_scores(config)):
        activations += 2 * rows * config.num_attention_heads * max_length  # the fused attention has no soft-cap
    if portable and not on_device:
        slots = sum(cache_length(window, max_length, chunk) for window in config.windows)
        activations += _score_copies(config) * rows * config.num_attention_heads * slots
        fixed = PORTABLE_RUNTIME_NBYTES + config.num_hidden_layers * PORTABLE_LAYER_NBYTES
    else:
        fixed = RUNTIME_NBYTES + config.num_hidden_layers * LAYER_NBYTES
    if costs.dtype == "float16" and not on_device:
        fixed += _HALF_COPIES * costs.weight_bytes
    caches = costs.cache_bytes(max_length, batch, chunk)
    return Need(costs.weight_bytes, caches, fixed + _ACTIVATION_SIZE * activations)


def estimate_reference(config: ModelConfig, dtype: str, tokens: int) -> Need:
    """The bytes that Transformers' model of `config` in `dtype` needs besides MindSpore for prompts of `tokens` tokens
    in ``validate``.

    Every weight is decoded, and caches exist only for one layer at a time. The second run, which measures rounding,
    copies embedding and head, one at a time.
    """
    costs = Costs(config, dtype)
    embedding = config.vocab_size * config.hidden_size * costs.itemsize
    activations = tokens * (_HIDDEN_COPIES * config.hidden_size + _WIDE_COPIES * costs.widest)
    scores = min(_SCORE_COPIES * config.num_attention_heads * tokens**2 * _ACTIVATION_SIZE, _SCORES_NBYTES)
    logits = _LOGIT_COPIES * min(tokens * config.vocab_size * _ACTIVATION_SIZE, _HEAD_NBYTES)
    workspace = PYTORCH_NBYTES + embedding + _ACTIVATION_SIZE * activations + scores + logits
    return Need(costs.weight_bytes, 0, workspace)


def estimate_verdict(own: Need, reference: Need | None) -> int:
    """Bytes of a process that runs the `reference` (None: no reference) and then the port, which needs `own` bytes.

    Their weights are in memory one after the other, but the process does not return all memory of the computation to
    the system.
    """
    if reference is None:
        return own.total
    return max(own.weights + own.caches, reference.weights) + own.workspace + reference.workspace


def only_portable(*, on_device: bool = False, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment allows only the portable operators."""
    return environ.get("MSPORT_OPS") == "portable" or (environ.get("MSPORT_NATIVE") == "0" and not on_device)


def operators_of(*, on_device: bool, portable: bool) -> str:
    """The kind of operators, for `kept_encodings`: ``portable``, ``cpu`` or ``ascend``."""
    return "portable" if portable else "ascend" if on_device else "cpu"


def most_that_fits(needed: Callable[[int], int], most: int, available: int) -> int:
    """The largest number up to `most` for which `needed(number)` bytes, which grow with it, are `available`; 0 if
    there is none.
    """
    return bisect_right(range(1, most + 1), available, key=needed)


def _caps_scores(config: ModelConfig) -> bool:
    return config.attn_logit_softcapping is not None


def _score_copies(config: ModelConfig) -> int:
    if _caps_scores(config):
        return _CAP_COPIES
    return _SINK_COPIES if config.sinks else _SCORE_COPIES
