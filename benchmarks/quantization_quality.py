"""What quantization costs on text: logits of one model from several files, compared token by token.

The text is the beginning of this repository's `docs/validation.md`, tokenized by the model's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msport.child import call_in_child
from msport.errors import UsageError
from msport.progress import Counter, Progress, titled
from msport.validate.compare.metrics import measure

TEXT = Path(__file__).resolve().parents[1] / "docs" / "validation.md"


def text_ids(folder: Path, tokens: int, text: Path = TEXT) -> list[int]:
    """The first `tokens` token ids of the file `text`, in the tokenizer of the checkpoint in `folder`.

    Raises `UsageError` if it has fewer.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids: list[int] = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids
    if len(ids) < tokens:
        raise UsageError(f"{text}: has {len(ids)} tokens, not {tokens}; ask for fewer")
    return ids[:tokens]


def write_msport_logits(folder: Path, ids: list[int], out: Path, threads: int, progress: Progress) -> None:
    """Writes msport's float32 logits after each of `ids`, ``[len(ids), vocab]``, to the NumPy file `out`."""
    call_in_child(
        "quantization_quality:compute_logits",
        {"folder": str(folder), "ids": ids, "out": str(out)},
        task=f"logits of {folder}",
        environment={"MSPORT_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
        progress=titled("logits:", progress),
    )


def compute_logits(folder: str, ids: list[int], out: str, *, progress: Progress) -> None:
    """The child's side of `write_msport_logits`."""
    from msport import load_model

    model = load_model(folder, max_length=len(ids))
    shape = (len(ids), model.config.vocab_size)
    counter = Counter("tokens", len(ids), progress)
    found = np.lib.format.open_memmap(out, "w+", np.float32, shape)
    for begin, logits in model.iter_logits([ids]):
        found[begin : begin + logits.shape[1]] = logits[0]
        counter.add(logits.shape[1])
    found.flush()


def compare(reference: Path, other: Path) -> Mapping[str, Any]:
    """Mean KL(reference || other) in nats over all tokens, and the share of them with the same likeliest next token.

    Both are NumPy files of logits ``[n, vocab]``.
    """
    errors = measure(np.load(reference, mmap_mode="r"), np.load(other, mmap_mode="r"))
    return {"tokens": len(errors), "mean_kl": float(errors.kl.mean()), "same_top1": float(errors.top1.mean())}
