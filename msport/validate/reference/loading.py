"""The reference: Transformers' eager implementation on the CPU, in float32 by default.

A plain checkpoint of the Hub, also with MXFP4 experts, is loaded with ``from_pretrained(dtype=float32)``. All others,
with packed weights or converted, get their weights from msport's encodings: see ``filling``. No module is cast
afterwards, because `module.to` would round the RoPE frequencies, which are buffers. Nothing is unpickled, downloaded,
or initialised at random.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msport.architectures import read_config
from msport.checkpoint import open_checkpoint
from msport.checkpoint.manifest import FILE_NAME
from msport.errors import CheckpointError, MissingDependencyError
from msport.validate.reference.filling import Parameters, build_empty
from msport.validate.reference.walk import Provide

PACKAGES = ("torch", "transformers")

_VECTOR_MATH = ("cos", "erf", "erfc", "exp", "expm1", "log", "log1p", "rsqrt", "sigmoid", "sin", "sqrt", "tanh")


class Reference:
    """A Transformers `model`; `provide` makes the weights of a module available. Made by `load_reference` or
    `stream_reference`.
    """

    def __init__(self, model: Any, provide: Provide) -> None:
        self.model = model
        self.provide = provide

    def close(self) -> None:
        """Frees the memory of the weights."""
        del self.model, self.provide
        gc.collect()


def check_reference_installed(purpose: str = "validating against PyTorch", otherwise: str = "") -> None:
    """Raises `MissingDependencyError` if torch or Transformers is missing, before a long run begins.

    `purpose` needs them; `otherwise` ends the message.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"{purpose} needs {' and '.join(missing)}: pip install 'msport[reference]'{otherwise}"
        )


def reference_versions() -> dict[str, str]:
    """Versions of the packages that compute the reference. The logits of one checkpoint differ between versions."""
    return {package: version(package) for package in PACKAGES}


def resolve_math_kernels() -> None:
    """Calls each vector function of MKL once on one element, so that two threads never make the first call together.

    oneMKL before 2025.0 chooses a kernel at a function's first call, and another thread that calls meanwhile may run
    the half-precision kernel: on two cores, cosines were wrong by 1e-4 in about one run of fifty. Source:
    https://github.com/pytorch/pytorch/issues/188792.
    """
    import torch

    for name in _VECTOR_MATH:
        getattr(torch, name)(torch.ones(1))


def load_reference(folder: Path, dtype: str = "float32") -> Reference:
    """The model in `folder`, every parameter in `dtype`; packed weights are decoded.

    Raises `MissingDependencyError`, and `CheckpointError` if Transformers cannot load the folder or would initialise a
    parameter at random.
    """
    check_reference_installed()
    resolve_math_kernels()
    with quiet():
        model = load_transformers(folder, dtype, attention="eager")
    return Reference(model, lambda module, prefix: nullcontext())


def load_transformers(folder: Path, dtype: str, attention: str | None) -> Any:
    """The Transformers model in `folder` with every parameter in `dtype`; packed weights are decoded.

    If `attention` is None, Transformers chooses the implementation. Raises `CheckpointError` as `load_reference`.
    """
    import torch

    if (folder / FILE_NAME).is_file() or _quantization_method(folder) not in (None, "mxfp4"):
        return _filled(folder, dtype, attention)
    model, report = _from_pretrained(folder, dtype, attention)
    _check_complete(folder, report)
    for weight in model.parameters():  # decoded experts are bfloat16; the buffers are not cast
        weight.data = weight.data.to(getattr(torch, dtype))
    return model.eval()


def _filled(folder: Path, dtype: str, attention: str | None) -> Any:
    with _naming(folder):
        model = build_empty(folder, dtype, attention)
    with open_checkpoint(folder) as checkpoint:
        Parameters(checkpoint, dtype).fill(model)
    model.tie_weights()
    return model


def _from_pretrained(folder: Path, dtype: str, attention: str | None) -> tuple[Any, dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM

    with _naming(folder):
        loaded: tuple[Any, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **_dequantization(folder),
        )
    return loaded


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Raises `CheckpointError` that names `folder` instead of Transformers' errors."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"{folder}: Transformers {version('transformers')} cannot load the reference ({error})"
        ) from error


def _dequantization(folder: Path) -> dict[str, Any]:
    if _quantization_method(folder) != "mxfp4":
        return {}
    from transformers import Mxfp4Config

    return {"quantization_config": Mxfp4Config(dequantize=True)}


def _quantization_method(folder: Path) -> str | None:
    method: str | None = (read_config(folder).get("quantization_config") or {}).get("quant_method")
    return method


def _check_complete(folder: Path, report: dict[str, Any]) -> None:
    """Raises `CheckpointError` for missing tensors. Transformers would initialise them at random and only warn."""
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        names = sorted(str(name) for name in report.get(kind) or ())
        if names:
            raise CheckpointError(
                f"{folder}: not a usable reference, Transformers reports {kind.replace('_', ' ')}:"
                f" {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
            )


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raises MemoryError instead of torch's RuntimeError about a failed allocation."""
    try:
        yield
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise MemoryError(str(error)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hides Transformers' warnings and progress bars in this context."""
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
