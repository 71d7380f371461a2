"""A walkthrough in Python on a tiny random model: convert, generate, validate, break a weight on purpose, measure.

``python examples/walkthrough.py`` takes a minute or two and writes to a temporary folder. docs/walkthrough.md shows its
output.
Needs ``pip install 'msport[reference]'``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import msport
from msport.checkpoint import open_checkpoint, read_manifest
from msport.sample import write_sample

PROMPTS = [list(range(1, 65)), list(range(100, 108))]


def walk() -> None:
    hub, converted, broken = Path("hub"), Path("converted"), Path("broken")

    title("a random Qwen3 of two layers, in the Hub's layout")
    write_sample("qwen3", hub, overrides={"num_hidden_layers": 2, "layer_types": None, "max_window_layers": 2})
    show_files(hub)

    title("converted")
    manifest = msport.convert_checkpoint(hub, converted, dtype="float32")
    print(f"{len(manifest.tensors)} tensors, {manifest.dtype}, {manifest.format}")
    show_files(converted)

    title("loaded: logits, and text (noise, because the weights are random)")
    model = msport.load_model(converted, max_length=256)
    logits = model.logits([PROMPTS[0]])
    print(f"logits {logits.shape} {logits.dtype}, on {model.device} in {model.dtype}")
    stream = model.tokenizer.stream()
    tokens = model.generate(PROMPTS[1], max_new_tokens=8, temperature=1.0, seed=1)
    print("".join(stream.add(token) for token in tokens) + stream.finish())

    title("validated against PyTorch")
    report = msport.validate_model(converted, tol=1e-2, prompts=PROMPTS)
    print(report)
    assert report.passed

    title("validated with one norm of layer 1 doubled: the report names layer, operation and tensor")
    shutil.copytree(converted, broken)
    double(broken, "model.layers.1.self_attn.q_norm.weight")
    report = msport.validate_model(broken, tol=1e-2, prompts=PROMPTS, level="layers")
    print(report)
    assert not report.passed

    title("measured")
    figures = msport.benchmark(converted, prompt_tokens=64, new_tokens=16, warmup=1, repeats=2, processes=1)
    print(figures)


def title(text: str) -> None:
    print(f"\n## {text}\n")


def show_files(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        print(f"{file.name:<34} {file.stat().st_size:>9,} bytes")


def double(folder: Path, name: str) -> None:
    """Double a float32 tensor of a converted checkpoint, in its file, at the place that the manifest gives."""
    record = read_manifest(folder).tensors[name]
    with open_checkpoint(folder) as checkpoint:
        values = 2 * checkpoint.read(name)
    (begin, _end), *_ = record.extents
    with (folder / record.file).open("r+b") as file:
        file.seek(begin)
        file.write(values.tobytes())


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        walk()
