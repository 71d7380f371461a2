"""Golden values: the results of a reference in one file, for machines without torch.

The file is a packed recording (see ``recording``). Its metadata holds prompts, seed, versions, and the checkpoint's
source and hash. It also holds the reference's noise for every dtype that a device may compute in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msport.architectures import ModelConfig
from msport.checkpoint.reader import read_header
from msport.errors import CheckpointError, ConfigError, OutputError
from msport.validate.operations import ATTENDED, EMBEDDING, FINAL_NORM, OUTPUT
from msport.validate.precision import SIGNIFICAND
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, layer_name, logits_name, pack
from msport.validate.reference.noise import FIELDS, noise_name
from msport.validate.reference.run import ReferenceRun

FORMAT = "msport.reference/2"
SUFFIX = ".safetensors"
_KEY = "msport"
_MAKE = "make them by msport validate --save-reference"


def is_golden(reference: str | Path | None) -> bool:
    """Whether `reference` names a file of golden values rather than a folder or a Hub id."""
    return reference is not None and Path(reference).suffix == SUFFIX and not Path(reference).is_dir()


def check_new(path: Path) -> None:
    """Raises `OutputError` if golden values cannot be written to `path`, before a long run begins."""
    if path.suffix != SUFFIX:
        raise OutputError(f"{path}: golden values go into a {SUFFIX} file; name it so")
    if path.exists():
        raise OutputError(f"{path}: exists already; delete it or choose another name")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path}: its folder does not exist; make it first")


def save_golden(recording: Recording, path: Path, run: ReferenceRun) -> None:
    """Writes all of `recording` to the new file `path`, which appears when it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    document = {**asdict(run), "format": FORMAT}
    document["stored"] = document.pop("narrowed_to")
    for prompt in document["prompts"]:
        del prompt["number"]  # its position in the list
    try:
        pack(recording, partial, {_KEY: json.dumps(document, ensure_ascii=False)})
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def read_golden(path: Path, config: ModelConfig) -> ReferenceRun:
    """The description of the golden values in `path`.

    Raises `CheckpointError` if the file holds no golden values or is incomplete, and `ConfigError` if they belong to
    another model.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {_MAKE} FILE, or copy it here")
    header = read_header(path)
    try:
        document = json.loads(header.metadata.get(_KEY, "null"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}")
        del document["format"]
        document["narrowed_to"] = document.pop("stored")
        document["prompts"] = tuple(_prompt(number, each) for number, each in enumerate(document["prompts"]))
        run = ReferenceRun(**document)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: holds no golden values of {FORMAT} ({error}); {_MAKE}") from None
    for name, value in run.sizes.items():
        if value != getattr(config, name, None):
            raise ConfigError(
                f"{path}: golden values of another model: {name} is {value}, not {getattr(config, name, None)};"
                " save them from the model that this was converted from"
            )
    if fault := next(_faults(run, config, {name: info.shape for name, info in header.tensors.items()}), None):
        raise CheckpointError(f"{path}: its golden values cannot be used: {fault}; {_MAKE}")
    return run


def _faults(run: ReferenceRun, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """What is missing or wrong in golden values whose tensors have `shapes`."""
    if not run.prompts:
        yield "there are no prompts"
    if not {run.dtype, run.source_dtype, run.narrowed_to or run.dtype} <= SIGNIFICAND.keys():
        yield f"they were computed in {run.dtype} from {run.source_dtype}, stored in {run.narrowed_to}"
    if missing := {"torch", "transformers"} - run.versions.keys():
        yield f"the version of {min(missing)} is missing"
    for number, prompt in enumerate(run.prompts):
        tokens = len(prompt.ids)
        if not isinstance(prompt.name, str) or not isinstance(prompt.text, str | None):
            yield f"prompt {number + 1} has a name or text that is not a string"
        if not 0 <= prompt.decoded < tokens <= config.max_position_embeddings:
            yield f"prompt '{prompt.name}' has {tokens} tokens, of which {prompt.decoded} are decoded"
        if not all(isinstance(token, int) and 0 <= token < config.vocab_size for token in prompt.ids):
            yield f"prompt '{prompt.name}' has ids outside the range 0 to {config.vocab_size - 1}"
        stream = [layer_name(n, part, number) for n in range(config.num_hidden_layers) for part in (ATTENDED, OUTPUT)]
        widths = dict.fromkeys((f"{EMBEDDING}.{number}", f"{FINAL_NORM}.{number}", *stream), config.hidden_size)
        for name, width in (widths | {logits_name(number): config.vocab_size}).items():
            if name not in shapes:
                yield f"{name} is missing"
            elif shapes[name] != (tokens, width):
                yield f"{name} is {shapes[name]}, not {(tokens, width)}"
    yield from _faults_of_noise(run, shapes)
    lengths = {str(number): len(prompt.ids) for number, prompt in enumerate(run.prompts)}
    for name, shape in shapes.items():
        if not name.startswith("noise.") and (len(shape) != 2 or shape[0] != lengths.get(name.rpartition(".")[2])):
            yield f"{name} is {shape}, of another number of tokens than its prompt"


def _faults_of_noise(run: ReferenceRun, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    layers = run.sizes["num_hidden_layers"]
    for dtype in SIGNIFICAND:
        name = noise_name(dtype)
        for key, rows in ((f"{name}.drift", layers + 1), (f"{name}.router", layers)):
            if shapes.get(key) != (rows, 1):
                yield f"{key} is {shapes.get(key)}, not {(rows, 1)}"
        for number, prompt in enumerate(run.prompts):
            shape = shapes.get(f"{name}.{number}", (0, 0))
            if len(shape) != 2 or not 0 < shape[0] <= len(prompt.ids) or shape[1] != len(FIELDS):
                yield f"{name}.{number} is {shape}, not the noise of prompt '{prompt.name}'"


def _prompt(number: int, document: dict[str, Any]) -> Prompt:
    return Prompt(document["name"], tuple(document["ids"]), document["decoded"], document.get("text"), number)
