"""Chooses the network and the dtype of our side before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msport.architectures import ModelConfig


@dataclass(frozen=True, slots=True)
class Ours:
    """The converted checkpoint in `folder` as a network of `config`, which computes in `dtype`."""

    folder: Path
    config: ModelConfig
    dtype: str

    @property
    def packed(self) -> bool:
        """Whether experts stay packed as MXFP4 and are decoded in the graph."""
        return bool(getattr(self.config, "packed_experts", False))

    @property
    def load_dtype(self) -> str:
        """The argument `dtype` for `load_model`."""
        return "mxfp4" if self.packed else self.dtype


def choose_ours(folder: Path, dtype: str | None) -> Ours:
    """The network and dtype that `load_model` would choose for `folder` and `dtype`. Raises the same errors, but
    before the reference runs.
    """
    from msport.msmodels.computation import choose_computation

    return Ours(folder, *choose_computation(folder, dtype))
