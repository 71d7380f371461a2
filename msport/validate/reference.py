"""The reference: Transformers' eager implementation in float32 on the CPU. The one module that imports torch.

It is loaded with ``from_pretrained(dtype=float32)`` and no module is cast afterwards: `module.to` would round the RoPE
frequencies, which are buffers. Nothing is unpickled, downloaded, or initialised at random.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msport.architectures import read_config
from msport.errors import CheckpointError, MissingDependencyError
from msport.validate.recording import Chunk

PACKAGES = ("torch", "transformers")

# Bytes that the attention scores of one layer, of which eager attention holds some five copies, may take.
_SCORE_BYTES = 1 << 30
_SCORE_COPIES = 5
_SMALLEST_CHUNK = 16

_VECTOR_MATH = ("cos", "erf", "erfc", "exp", "expm1", "log", "log1p", "rsqrt", "sigmoid", "sin", "sqrt", "tanh")


class Reference:
    """A Transformers model that yields logits and the residual stream; made by `load_reference`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = model.get_decoder().layers

    def run(self, ids: Sequence[int], chunk: int | None = None) -> Iterator[Chunk]:
        """Outputs for one prompt: in one forward pass if its attention scores fit 1 GB, else in chunks with a KV cache.

        `chunk` forces a number of tokens a pass.
        """
        import torch
        from transformers import DynamicCache

        tokens = torch.tensor([list(ids)])
        chunk = chunk or self._chunk(len(ids))
        cache = DynamicCache()
        for start in range(0, len(ids), chunk):
            piece = tokens[:, start : start + chunk]
            positions = torch.arange(start, start + piece.shape[1])
            with torch.inference_mode(), self._watching() as states:
                output = self._model(piece, past_key_values=cache, use_cache=True, cache_position=positions)
            yield Chunk(start, output.logits[0].numpy(), torch.stack(states).numpy())

    def close(self) -> None:
        """Gives the weights' memory back."""
        del self._model, self._layers
        gc.collect()

    def _chunk(self, length: int) -> int:
        row_bytes: int = self._model.config.num_attention_heads * length * 4 * _SCORE_COPIES
        return max(_SMALLEST_CHUNK, min(length, _SCORE_BYTES // row_bytes))

    @contextmanager
    def _watching(self) -> Iterator[list[Any]]:
        """Collects the input of the first layer and the output of each, ``[tokens, hidden]``, during one pass.

        Hooks, because the last of `output_hidden_states` has gone through the final norm.
        """
        states: list[Any] = []

        def enter(_module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            states.append((arguments[0] if arguments else options["hidden_states"])[0])

        def leave(_module: Any, _arguments: Any, output: Any) -> None:
            states.append((output[0] if isinstance(output, tuple) else output)[0])

        hooks = [self._layers[0].register_forward_pre_hook(enter, with_kwargs=True)]
        hooks += [layer.register_forward_hook(leave) for layer in self._layers]
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()


def check_reference_installed() -> None:
    """Raises `MissingDependencyError` if torch or Transformers is missing, before anything long has started."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"validating against PyTorch needs {' and '.join(missing)}: pip install 'msport[reference]'"
        )


def reference_versions() -> dict[str, str]:
    """Versions of the packages that compute the reference: logits of one checkpoint differ between them."""
    return {package: version(package) for package in PACKAGES}


def resolve_math_kernels() -> None:
    """Calls each vector function of MKL once on one element, so that no two threads make the first call.

    Until 2025.0 oneMKL picks a kernel at a function's first call, and another thread that calls meanwhile may run the
    half-precision one: cosines wrong by 1e-4 in one run out of some fifty, on two cores. Source:
    https://github.com/pytorch/pytorch/issues/188792.
    """
    import torch

    for name in _VECTOR_MATH:
        getattr(torch, name)(torch.ones(1))


def load_reference(folder: Path) -> Reference:
    """The model in `folder`, every parameter in float32; MXFP4 experts are decoded.

    Raises `MissingDependencyError`, and `CheckpointError` if Transformers cannot load the folder or would leave a
    parameter to chance.
    """
    check_reference_installed()
    import torch

    resolve_math_kernels()
    with _quiet():
        model, report = _from_pretrained(folder)
    _check_complete(folder, report)
    for parameter in model.parameters():  # decoded experts come in bfloat16; the buffers are float32 and stay untouched
        parameter.data = parameter.data.to(torch.float32)
    model.eval()
    return Reference(model)


def _from_pretrained(folder: Path) -> tuple[Any, dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        loaded: tuple[Any, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **_dequantization(folder),
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"{folder}: Transformers {version('transformers')} cannot load the reference ({error})"
        ) from error
    return loaded


def _dequantization(folder: Path) -> dict[str, Any]:
    quantization = read_config(folder).get("quantization_config") or {}
    if quantization.get("quant_method") != "mxfp4":
        return {}
    from transformers import Mxfp4Config

    return {"quantization_config": Mxfp4Config(dequantize=True)}


def _check_complete(folder: Path, report: dict[str, Any]) -> None:
    """Transformers initialises at random what a checkpoint lacks, and only warns."""
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        names = sorted(str(name) for name in report.get(kind) or ())
        if names:
            raise CheckpointError(
                f"{folder}: not a usable reference, Transformers reports {kind.replace('_', ' ')}:"
                f" {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Transformers' warnings and progress bars off stderr."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
