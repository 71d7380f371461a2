"""The reference for a model that does not fit in memory: Transformers' own layers, with weights read one layer at a
time.

The model is built on torch's meta device, which needs no memory. Each module gets its parameters from the checkpoint
when it runs, and frees them after. ``checkpoint.mxfp4`` decodes MXFP4 experts, because Transformers' own routine would
take most of the time; a few rows are compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from msport.checkpoint import Checkpoint, mxfp4, open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT8_E4M3FN, FLOAT32, Array
from msport.errors import CheckpointError, UnsupportedError
from msport.validate.reference.loading import Reference, check_reference_installed, quiet, resolve_math_kernels

# Rows of each packed tensor that Transformers' decoder, a hundred times slower than ours, also decodes.
_CHECKED_ROWS = 64


def stream_reference(folder: Path, dtype: str = "float32") -> Reference:
    """The model in `folder`; only one module at a time has its parameters in memory, in `dtype`.

    Raises `MissingDependencyError`, `CheckpointError` if a parameter is missing or has another shape, and
    `UnsupportedError` if this release of Transformers stores parameters in another form than the Hub.
    """
    check_reference_installed()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    resolve_math_kernels()
    with quiet():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, dtype), attn_implementation="eager", trust_remote_code=False
            )
    model.eval()
    decoder = model.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(config=decoder.config)  # computed from the config, so in memory
    unfilled = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if unfilled:
        raise UnsupportedError(f"{folder}: cannot stream the reference, it has buffers {', '.join(unfilled)}")
    return Reference(model, _Source(open_checkpoint(folder), dtype).provide)


class _Source:
    """Parameters by Transformers' names, read from a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, dtype: str) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        # The decoded experts of one layer reuse the memory of the last layer, because new pages would cost more than
        # decoding.
        self._decoded: dict[tuple[str, tuple[int, ...]], Array] = {}

    @contextmanager
    def provide(self, module: Any, prefix: str) -> Iterator[None]:
        """Fills the parameters of `module`, with names below `prefix`, during this context."""
        import torch

        empty = []
        for name, parameter in list(module.named_parameters()):
            owner_name, _, attribute = name.rpartition(".")
            owner = module.get_submodule(owner_name)
            values = self._read(prefix + name)
            if values.shape != parameter.shape:
                raise CheckpointError(
                    f"{self._checkpoint.folder}: {prefix}{name} is {list(values.shape)}, config.json implies"
                    f" {list(parameter.shape)}"
                )
            empty.append((owner, attribute, parameter))
            setattr(owner, attribute, torch.nn.Parameter(values, requires_grad=False))
        try:
            yield
        finally:
            for owner, attribute, parameter in empty:
                setattr(owner, attribute, parameter)

    def _read(self, name: str) -> Any:
        import torch

        dtype = getattr(torch, self._dtype)
        tensors = self._checkpoint.tensors
        if name not in tensors and name == "lm_head.weight":
            name = "model.embed_tokens.weight"  # tied
        if f"{name}_blocks" in tensors:
            return self._decode(name).to(dtype)
        if name not in tensors:
            raise CheckpointError(
                f"{self._checkpoint.folder}: no tensor {name}, which the reference needs; Transformers 5 fuses the"
                " experts of some families: stream with Transformers 4.57, or download the checkpoint again"
            )
        values = torch.from_numpy(self._checkpoint.read(name))
        if tensors[name].dtype == FLOAT8_E4M3FN:
            values = values.view(torch.float8_e4m3fn).to(torch.float32) * self._scales(name, values.shape)
        if tensors[name].dtype == BFLOAT16:
            values = values.view(torch.int16).view(torch.bfloat16)
        return values.to(dtype)

    def _scales(self, name: str, shape: Any) -> Any:
        """The scale of each value of an FP8 layer, float32 ``[out, in]``: one for each block of 128 by 128."""
        blocks = self._read(f"{name}_scale_inv").float()
        return blocks.repeat_interleave(128, 0).repeat_interleave(128, 1)[: shape[0], : shape[1]]

    def _decode(self, name: str) -> Any:
        """MXFP4 experts in float32, ``[experts, in, out]``."""
        import torch

        blocks, scales = (self._checkpoint.read(f"{name}_{part}") for part in ("blocks", "scales"))
        experts, rows, groups = scales.shape
        place = name.rpartition(".")[2], (experts, groups * mxfp4.BLOCK_VALUES, rows)
        if place not in self._decoded:
            self._decoded[place] = np.empty(place[1], np.float32)
        values = self._decoded[place]
        for expert in range(experts):
            mxfp4.decode_transposed(blocks[expert], scales[expert], FLOAT32, out=values[expert], where=name)
        self._check_decoded(name, blocks[-1:, :_CHECKED_ROWS], scales[-1:, :_CHECKED_ROWS], values[-1:])
        return torch.from_numpy(values)

    def _check_decoded(self, name: str, blocks: Array, scales: Array, values: Array) -> None:
        """Compares rows of the last expert with Transformers' own decoder, because the reference must not depend on
        our code.
        """
        import torch
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        packed = [torch.from_numpy(np.ascontiguousarray(part)) for part in (blocks, scales)]
        theirs = convert_moe_packed_tensors(*packed, dtype=torch.float32).numpy()
        if not np.array_equal(theirs, values[:, :, : theirs.shape[2]]):
            raise AssertionError(f"{name}: decoded otherwise than Transformers decodes it")
