"""Chooses the network and the dtype of our side before it runs, and whether it runs one layer at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msport.architectures import ModelConfig
from msport.checkpoint import read_manifest
from msport.sizing.costs import PREFILL_CHUNK, Costs
from msport.sizing.kept import Encodings, encodings_of, kept_encodings, packed_names
from msport.validate.memory import must_stream


@dataclass(frozen=True, slots=True)
class Port:
    """The converted checkpoint in `folder` as a network of `config`, which computes in `dtype`.

    `kept` are the weights that stay as they lie, `stored` is the dtype of the conversion. If `streamed`, both sides
    have one layer in memory at a time.
    """

    folder: Path
    config: ModelConfig
    dtype: str
    stored: str
    streamed: bool
    kept: Encodings

    @property
    def costs(self) -> Costs:
        """The costs of our side."""
        return Costs(self.config, self.dtype, self.kept)

    @property
    def packed(self) -> bool:
        """Whether any weight stays packed."""
        return bool(packed_names(self.kept))


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
    decodes what our side may keep packed.
    """
    import mindspore as ms

    from msport.msmodels import ops
    from msport.msmodels.computation import choose_computation

    config, chosen = choose_computation(folder, dtype)
    device = ms.get_context("device_target")
    kept = kept_encodings(config, encodings_of(folder, config), chosen, ops.products(ops.choose(device)))
    if stream is None:
        stream = must_stream(Costs(config, chosen, kept), tokens, reference_dtype, on_device=device != "CPU")
    return Port(folder, config, chosen, read_manifest(folder).dtype, stream, kept)
