"""Golden logits of a sample of every family, by Transformers: ``python tests/acceptance/golden.py`` makes them anew.

A sample is the same bytes on every machine, so its weights need not be kept: a file holds prompt tokens and float16
logits at the last positions of one prompt, past every window, and in its metadata Transformers' version and how far
Transformers itself is from its float32 in bfloat16 and float16, at the middle position. That is the yardstick for an
NPU in the same dtype.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msport.architectures import ARCHITECTURES
from msport.checkpoint import ShardWriter, TensorFile, safetensors
from msport.sample import write_sample

FOLDER = Path(__file__).parent / "golden"
FAMILIES = tuple(family.title for family in ARCHITECTURES.values())
LAYERS, SEED = 2, 11
# Longer than every sample's window; the last positions, of which the final ones are decoded one by one.
TOKENS, KEPT = 56, 10


@dataclass(frozen=True)
class Golden:
    """``ids [TOKENS]``; ``logits [KEPT, vocab]`` at the last of them; Transformers' own error by dtype."""

    ids: np.ndarray
    logits: np.ndarray
    errors: dict[str, float]
    transformers: str


def sample(family: str, folder: Path) -> Path:
    """The checkpoint that the golden logits of `family` belong to."""
    return write_sample(family, folder, seed=SEED, overrides={"num_hidden_layers": LAYERS})


def path(family: str) -> Path:
    return FOLDER / f"{family.lower()}.safetensors"


def load(family: str) -> Golden:
    with TensorFile(path(family)) as file:
        metadata = file.header.metadata
        return Golden(
            np.array(file.read("ids")),
            np.array(file.read("logits")).astype(np.float32),
            {dtype: float(metadata[dtype]) for dtype in ("bfloat16", "float16")},
            metadata["transformers"],
        )


def relative_errors(reference: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Relative L2 error of each row."""
    return np.asarray(np.linalg.norm(found - reference, axis=-1) / np.linalg.norm(reference, axis=-1))


def make(family: str) -> None:
    """Writes the golden logits of `family`; needs torch and Transformers."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        folder = sample(family, Path(scratch) / "sample")
        vocab = transformers.AutoConfig.from_pretrained(folder).vocab_size
        ids = np.random.default_rng(SEED).integers(0, vocab, TOKENS).astype(np.int32)
        logits = {}
        for dtype in ("float32", "bfloat16", "float16"):
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), attn_implementation="eager"
            ).eval()
            for parameter in model.parameters():  # decoded experts come in bfloat16; buffers stay untouched
                parameter.data = parameter.data.to(getattr(torch, dtype))
            with torch.inference_mode():
                out = model(torch.from_numpy(ids.astype(np.int64))[None], use_cache=False).logits[0, -KEPT:]
            logits[dtype] = out.float().numpy()
    truth = logits["float32"]
    metadata = {"transformers": transformers.__version__}
    for dtype in ("bfloat16", "float16"):
        # The middle position: where rounding sends a token to another expert, one is off by far more.
        metadata[dtype] = f"{np.median(relative_errors(truth, logits[dtype])):.3e}"
    tensors = {"ids": ids, "logits": truth.astype(np.float16)}
    _write(path(family), tensors, metadata)
    print(family, metadata, f"{path(family).stat().st_size} bytes")


def _write(where: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    from msport.checkpoint.dtypes import FLOAT16, INT32

    dtypes = {"int32": INT32, "float16": FLOAT16}
    layout = safetensors.plan_layout(((n, dtypes[a.dtype.name], a.shape) for n, a in tensors.items()), metadata)
    where.unlink(missing_ok=True)
    with ShardWriter(where, layout) as writer:
        for name, array in tensors.items():
            writer.write(name, 0, array)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for family in FAMILIES:
        make(family)
