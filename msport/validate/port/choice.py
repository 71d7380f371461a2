"""Chooses the network and the dtype of our side before it runs, and whether it runs one layer at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msport.architectures import ModelConfig
from msport.checkpoint import read_manifest
from msport.sizing.costs import PREFILL_CHUNK
from msport.validate.memory import must_stream


@dataclass(frozen=True, slots=True)
class Port:
    """The converted checkpoint in `folder` as a network of `config`, which computes in `dtype`.

    `stored` is the dtype of the conversion. If `streamed`, both sides have one layer in memory at a time.
    """

    folder: Path
    config: ModelConfig
    dtype: str
    stored: str
    streamed: bool

    @property
    def packed(self) -> bool:
        """Whether experts stay packed as MXFP4 and are decoded in the graph."""
        return self.config.packed_experts

    @property
    def load_dtype(self) -> str:
        """The argument `dtype` for `load_model`."""
        return "mxfp4" if self.packed else self.dtype


def choose_port(
    folder: Path,
    dtype: str | None,
    stream: bool | None = False,
    *,
    tokens: int = PREFILL_CHUNK,
    reference_dtype: str | None = None,
) -> Port:
    """The network and dtype that `load_model` would choose for `folder` and `dtype`.

    Raises the same errors, but before the reference runs. `stream` None: if the model does not fit in memory for
    prompts of `tokens`, or the reference does not. That computes in `reference_dtype` (None: it does not run) and
    decodes experts that our side may keep packed.
    """
    import mindspore as ms

    from msport.msmodels.computation import choose_computation

    config, chosen = choose_computation(folder, dtype)
    if stream is None:
        on_device = ms.get_context("device_target") != "CPU"
        stream = must_stream(config, chosen, tokens, reference_dtype, on_device=on_device)
    return Port(folder, config, chosen, read_manifest(folder).dtype, stream)
