"""Calls the functions of `llama_cpp_peer.py` in the user's Python that has llama.cpp, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msport.bench.measure.session import Session
from msport.bench.measure.typed_json import parse
from msport.bench.measure.workload import Job

_HERE = Path(__file__).resolve().parent
HOW_TO_GET = (
    "python3 -m venv llama && llama/bin/pip install llama-cpp-python gguf (five minutes),"
    " then name it by --llama-python llama/bin/python"
)


class LlamaError(Exception):
    """What llama.cpp cannot do, in one line."""


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """llama.cpp in the environment of the program `python`, on the processors `cores`.

    With `plain_head`, embedding and head stay in bfloat16 when a model is quantized.
    """

    python: str
    cores: tuple[int, ...]
    plain_head: bool = False

    def describe(self) -> dict[str, str]:
        """Its versions. Raises `LlamaError` that says how to get it."""
        try:
            found: dict[str, str] = self._call("describe")
        except LlamaError as error:
            raise LlamaError(f"{error}; to get llama.cpp: {HOW_TO_GET}") from error
        return found

    def write(self, folder: Path, path: Path) -> None:
        """Writes the checkpoint in `folder` to the GGUF file `path`, in bfloat16."""
        self._call("write", folder=str(folder), path=str(path))

    def quantize(self, source: Path, path: Path, kind: str) -> None:
        """Writes the GGUF file `source` to `path` in the type `kind`."""
        self._call("quantize", source=str(source), path=str(path), kind=kind, plain_head=self.plain_head)

    def weights_nbytes(self, path: Path) -> int:
        """Bytes of the weights that a token needs."""
        found: int = self._call("weights_nbytes", path=str(path))
        return found

    def measure(self, job: Job, kind: str) -> Session:
        """Measures the GGUF file that `job` names as its folder."""
        return parse(Session, self._call("measure", job=asdict(job), kind=kind))

    def write_logits(self, path: Path, ids: Sequence[int], out: Path) -> None:
        """Writes the logits after each of `ids` to the NumPy file `out`."""
        self._call("write_logits", path=str(path), ids=list(ids), out=str(out), threads=len(self.cores))

    def _call(self, function: str, **arguments: Any) -> Any:
        call = {"function": function, "arguments": arguments, "cores": self.cores}
        threads = {"OMP_NUM_THREADS": str(len(self.cores))}
        try:
            child = subprocess.run(
                [self.python, str(_HERE / "llama_cpp_peer.py")],
                input=json.dumps(call),
                capture_output=True,
                text=True,
                env={**os.environ, **threads, "PYTHONPATH": str(_HERE.parent)},
            )
        except OSError as error:
            raise LlamaError(f"{self.python}: {error.strerror}") from error
        if child.returncode:
            lines = child.stderr.strip().splitlines() or [f"ended with exit code {child.returncode}"]
            raise LlamaError(f"{self.python}: {function}: {lines[-1]}")
        return json.loads(child.stdout.splitlines()[-1])
