"""Chooses the network and the dtype of our side before it runs, and whether it runs one layer at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msport.architectures import ModelConfig, load_config
from msport.checkpoint import read_manifest
from msport.validate.memory import too_large, weight_nbytes

PREFILL_CHUNK = 128


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
        return bool(getattr(self.config, "packed_experts", False))

    @property
    def load_dtype(self) -> str:
        """The argument `dtype` for `load_model`."""
        return "mxfp4" if self.packed else self.dtype


def choose_port(folder: Path, dtype: str | None, stream: bool | None = False, *, with_reference: bool = False) -> Port:
    """The network and dtype that `load_model` would choose for `folder` and `dtype`.

    Raises the same errors, but before the reference runs. `stream` None: if the model does not fit in memory, or, with
    `with_reference`, if the reference does not, which decodes experts that our side may keep packed.
    """
    from msport.msmodels.computation import choose_computation

    config, chosen = choose_computation(folder, dtype)
    if stream is None:
        larger = weight_nbytes(load_config(folder), "float32") if with_reference else weight_nbytes(config, chosen)
        stream = too_large(larger)
    return Port(folder, config, chosen, read_manifest(folder).dtype, stream)
