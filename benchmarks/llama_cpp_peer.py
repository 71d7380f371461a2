"""llama.cpp's side of `against_llama_cpp.py`: one call, in the Python that has llama-cpp-python and gguf.

It reads the call as JSON from stdin and prints the result as JSON in the last line. The timed loop is msport's own,
which needs only NumPy, so the sides are measured by the same code.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf_llama import write_gguf

from msport.bench.measure.session import Session, run_workloads, timed
from msport.bench.measure.typed_json import parse
from msport.bench.measure.workload import Job
from msport.sizing.process import read_memory

Array = np.ndarray[Any, Any]

# Tokens of a prompt that llama.cpp takes at a time; its default size of a physical batch.
_BATCH = 512


def describe() -> dict[str, str]:
    """The versions, and the instructions that llama.cpp was built for."""
    versions = {name: version(name) for name in ("llama-cpp-python", "gguf")}
    return {**versions, "instructions": llama_cpp.llama_print_system_info().decode()}


def write(folder: str, path: str) -> None:
    """Writes the checkpoint in `folder` as GGUF in bfloat16."""
    write_gguf(Path(folder), Path(path))


def quantize(source: str, path: str, kind: str, plain_head: bool) -> None:
    """Writes the GGUF file `source` with matrices of type `kind`, such as ``Q4_0``.

    llama.cpp chooses the type of embedding and head, unless they stay as they are (`plain_head`).
    """
    parameters = llama_cpp.llama_model_quantize_default_params()
    prefix = "ALL" if kind == "F32" else "MOSTLY"
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{prefix}_{kind}")
    parameters.allow_requantize = True
    if plain_head:
        parameters.output_tensor_type = parameters.token_embedding_type = int(GGMLQuantizationType.BF16)
    if llama_cpp.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(parameters)):
        sys.exit(f"{source}: llama.cpp did not quantize it to {kind}")


def weights_nbytes(path: str) -> int:
    """Bytes of the weights that a token needs: all tensors, without the embedding if the head is another one."""
    nbytes = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(path).tensors}
    if "output.weight" in nbytes:
        del nbytes["token_embd.weight"]
    return sum(nbytes.values())


def measure(job: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Runs the `Job` with the fields `job`, whose folder is a GGUF file; returns the fields of its `Session`."""
    work = parse(Job, job)
    model, load_seconds = timed(lambda: Model(work.folder, work.max_length, len(work.cores)))
    loaded = read_memory()
    start, results = run_workloads(model, work, model.vocab_size, lambda step: None)
    memory = read_memory()
    session = Session(
        engine="llama.cpp",
        versions=describe(),
        device="CPU",
        dtype=kind,
        max_length=work.max_length,
        details={"threads": len(work.cores)},
        import_seconds=0.0,
        load_seconds=load_seconds,
        start=start,
        loaded=loaded,
        memory=memory,
        peaks=(memory.peak_resident,),
        results=results,
    )
    return asdict(session)


def write_logits(path: str, ids: list[int], out: str, threads: int) -> None:
    """Writes the float32 logits after each of `ids`, ``[len(ids), vocab]``, to the NumPy file `out`."""
    model = Model(path, len(ids), threads)
    found = np.lib.format.open_memmap(out, "w+", np.float32, (len(ids), model.vocab_size))
    for begin in range(0, len(ids), _BATCH):
        found[begin : begin + _BATCH] = model.score(np.array(ids[begin : begin + _BATCH]), begin)
    found.flush()


class Model:
    """A GGUF file in llama.cpp, as an `Engine` of the timed loop. Everything but sizes and threads is its default."""

    def __init__(self, path: str, length: int, threads: int) -> None:
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch = length, _BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(model, parameters) if model else None
        if not self._context:
            sys.exit(f"{path}: llama.cpp cannot load it")
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model)))

    def prefill(self, ids: Array) -> Array:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        return self._append(ids[0])

    def decode(self, tokens: Array) -> Array:
        return self._append(tokens)

    def score(self, ids: Array, begin: int) -> Array:
        """The logits after each of `ids`, the first of which stands at position `begin`."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for index, token in enumerate(ids):
            batch.token[index], batch.pos[index], batch.logits[index] = int(token), begin + index, 1
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
        self._run(batch)
        rows = np.stack([self._logits(index) for index in range(len(ids))])
        llama_cpp.llama_batch_free(batch)
        return rows

    def _append(self, ids: Array) -> Array:
        tokens = (llama_cpp.llama_token * len(ids))(*map(int, ids))
        self._run(llama_cpp.llama_batch_get_one(tokens, len(ids)))
        return self._logits(-1)[None].copy()

    def _run(self, batch: Any) -> None:
        if llama_cpp.llama_decode(self._context, batch):
            sys.exit("llama.cpp did not compute the logits")

    def _logits(self, index: int) -> Array:
        """A view that is valid until the next tokens."""
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, index), (self.vocab_size,))


_CALLS: Mapping[str, Callable[..., Any]] = {
    each.__name__: each for each in (describe, write, quantize, weights_nbytes, measure, write_logits)
}


def main() -> None:
    call = json.load(sys.stdin)
    if call["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, call["cores"])
    print(json.dumps(_CALLS[call["function"]](**call["arguments"])))


if __name__ == "__main__":
    main()
