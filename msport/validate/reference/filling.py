"""Transformers' own model with weights that msport's encodings decode: from any folder that msport reads.

The model is built on torch's meta device, which needs no memory. Its parameters come from the checkpoint, by the names
of Transformers: float32, exact products of codes and scales. No library of GPTQ, AWQ or compressed-tensors is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msport.checkpoint import Checkpoint
from msport.checkpoint.dtypes import FLOAT32, FLOATING, Array
from msport.convert.matching import Match, match_checkpoint
from msport.encodings import MXFP4, Encoding, Part
from msport.errors import CheckpointError, UnsupportedError

# Rows of each stack in MXFP4 that Transformers' decoder, a hundred times slower than ours, also decodes.
_CHECKED_ROWS = 64


def build_empty(folder: Path, dtype: str, attention: str | None) -> Any:
    """The Transformers model of `folder` on the meta device, its buffers in memory; `attention` None: its choice.

    Raises `UnsupportedError` if it has buffers that the config alone does not give.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    options = {} if attention is None else {"attn_implementation": attention}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), trust_remote_code=False, **options
        )
    model.eval()
    decoder = model.get_decoder()
    decoder.rotary_emb = type(decoder.rotary_emb)(config=decoder.config)  # computed from the config, so in memory
    unfilled = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if unfilled:
        raise UnsupportedError(f"{folder}: cannot build the reference, it has buffers {', '.join(unfilled)}")
    return model


class Parameters:
    """Parameters in `dtype` by Transformers' names, read from `checkpoint`.

    With `reuse`, decoded parameters of the same name in their layer and the same shape share memory, because new pages
    would cost more than decoding; only one of them is valid at a time.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: str, *, reuse: bool = False) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._reused: dict[tuple[str, tuple[int, ...]], Array] | None = {} if reuse else None

    def fill(self, module: Any, prefix: str = "") -> list[tuple[Any, str, Any]]:
        """Puts values into the parameters of `module`, with names below `prefix`.

        Returns each owner, its attribute and the parameter that was there. Raises `CheckpointError` if a parameter is
        missing from the checkpoint or has another shape.
        """
        import torch

        replaced = []
        for name, parameter in list(module.named_parameters()):
            owner_name, _, attribute = name.rpartition(".")
            owner = module.get_submodule(owner_name)
            values = self.read(prefix + name)
            if values.shape != parameter.shape:
                raise CheckpointError(
                    f"{self._checkpoint.folder}: {prefix}{name} is {list(values.shape)}, config.json implies"
                    f" {list(parameter.shape)}"
                )
            replaced.append((owner, attribute, parameter))
            setattr(owner, attribute, torch.nn.Parameter(values, requires_grad=False))
        return replaced

    @contextmanager
    def provide(self, module: Any, prefix: str) -> Iterator[None]:
        """Fills the parameters of `module`, with names below `prefix`, during this context."""
        replaced = self.fill(module, prefix)
        try:
            yield
        finally:
            for owner, attribute, parameter in replaced:
                setattr(owner, attribute, parameter)

    def read(self, name: str) -> Any:
        """The parameter `name` as a tensor; a stack of experts is ``[experts, in, out]``."""
        import torch

        tensors = self._checkpoint.tensors
        if name not in tensors and name == "lm_head.weight" and name not in self._places:
            name = "model.embed_tokens.weight"  # tied
        if name in tensors and tensors[name].dtype in FLOATING:
            stored = self._checkpoint.read(name)
            values = torch.from_numpy(stored)
            if stored.dtype == np.uint16:
                values = values.view(torch.int16).view(torch.bfloat16)
        else:
            values = torch.from_numpy(self._decode(name))
        return values.to(getattr(torch, self._dtype))

    @cached_property
    def _places(self) -> dict[str, tuple[Match, int | None]]:
        """For each name, the weight that it is, or a layer of a stack of experts, and the number of the layer."""
        _, matches, _ = match_checkpoint(self._checkpoint)
        places: dict[str, tuple[Match, int | None]] = {}
        for found in matches:
            for form in found.weight.forms:
                for number, matrix in enumerate(form.matrices):
                    places[matrix.name] = (found, None if form.per_expert is None else number)
        return places

    def _decode(self, name: str) -> Array:
        if name not in self._places:
            raise CheckpointError(
                f"{self._checkpoint.folder}: no tensor {name}, which the reference needs; download the checkpoint again"
            )
        found, number = self._places[name]
        if found.form.per_expert is None:
            (encoding,), (parts,) = found.encodings, found.parts
            if number is None:
                return self._whole(name, found, encoding, parts)
            return self._layer_of_stack(number, found, encoding, parts)
        if number is None:
            raise CheckpointError(
                f"{self._checkpoint.folder}: no tensor {name}, which the reference needs; Transformers 5 fuses the"
                " experts of some families: take Transformers 4.57"
            )
        arrays = [self._checkpoint.read(part.name) for part in found.parts[number]]
        return found.encodings[number].decode(arrays, FLOAT32, where=self._where(name))

    def _whole(self, name: str, found: Match, encoding: Encoding, parts: tuple[Part, ...]) -> Array:
        """A weight that is stored as one matrix, or a stack ``[experts, in, out]``, one expert at a time."""
        matrix = found.weight.matrix
        if len(matrix) < 3:
            return encoding.decode(self._read(parts), FLOAT32, where=self._where(name))
        values = self._memory(name, found.weight.shape)
        for expert in range(matrix[0]):
            encoding.decode(
                self._read(parts, expert), FLOAT32, values[expert : expert + 1].swapaxes(1, 2), where=self._where(name)
            )
        if encoding == MXFP4:
            self._check_mxfp4(name, self._read(parts, matrix[0] - 1), values[-1:])
        return values

    def _layer_of_stack(self, number: int, found: Match, encoding: Encoding, parts: tuple[Part, ...]) -> Array:
        """Layer ``[out, in]`` `number` of those that one stack holds: gate and up of the first expert, and so on."""
        experts, outputs, _ = found.weight.matrix
        layers = max(form.per_expert or 1 for form in found.weight.forms)
        expert, position = divmod(number, layers)
        rows = outputs // layers
        if expert >= experts:
            raise IndexError(f"{found.weight.name} has {experts} experts, not {expert + 1}")
        values = encoding.decode(self._read(parts, expert), FLOAT32, where=self._where(found.weight.name))
        return np.ascontiguousarray(values[0, position * rows : (position + 1) * rows])

    def _read(self, parts: tuple[Part, ...], expert: int | None = None) -> list[Array]:
        """The arrays of `parts`; with `expert`, stacks of that one alone."""
        rows = () if expert is None else (expert, expert + 1)
        return [self._checkpoint.read(part.name, *rows) for part in parts]

    def _memory(self, name: str, shape: tuple[int, ...]) -> Array:
        if self._reused is None:
            return np.empty(shape, np.float32)
        place = name.rpartition(".")[2], shape
        if place not in self._reused:
            self._reused[place] = np.empty(shape, np.float32)
        return self._reused[place]

    def _where(self, name: str) -> str:
        return f"{self._checkpoint.folder}: {name}"

    def _check_mxfp4(self, name: str, parts: list[Array], values: Array) -> None:
        """Compares rows of an expert with Transformers' own decoder, because the reference must not depend on our
        code.
        """
        import torch
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        packed = [torch.from_numpy(np.ascontiguousarray(part[:, :_CHECKED_ROWS])) for part in parts]
        theirs = convert_moe_packed_tensors(*packed, dtype=torch.float32).numpy()
        if not np.array_equal(theirs, values[:, :, : theirs.shape[2]]):
            raise AssertionError(f"{name}: decoded otherwise than Transformers decodes it")
