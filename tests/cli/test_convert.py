"""`msport convert`: what it prints, what reaches the conversion, and how it shows a plan and progress."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from convert.hub_folder import change_tensors

from cli.command import Run
from msport.checkpoint import open_checkpoint, read_manifest
from msport.checkpoint.dtypes import FLOAT32
from msport.sample import write_sample


def test_help_shows_every_option_and_examples(msport: Run) -> None:
    text = msport("convert", "--help").out
    for option in ("output", "dtype", "format", "max-shard-size", "max-memory", "dry-run", "json", "verify"):
        assert f"--{option} " in text
    assert "  msport convert openai/gpt-oss-20b\n" in text


def test_a_conversion_prints_what_was_made(msport: Run, model: Path, output: Path) -> None:
    result = msport("convert", model, "-o", output)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(
        f"{output}: GptOssForCausalLM, bfloat16, safetensors\n  37 tensors, 2.05 MB in 1 shard"
    )
    assert read_manifest(output).dtype == "bfloat16"


def test_a_narrowing_conversion_says_so_in_a_sentence(msport: Run, tmp_path: Path, output: Path) -> None:
    wide = write_sample("qwen3", tmp_path / "wide", dtype="float32", overrides={"num_hidden_layers": 1})
    said = "rounded: 17 tensors from float32 to bfloat16; --dtype float32 keeps every value\n"
    assert said in msport("convert", wide, "-o", output, "--dtype", "bfloat16", "--dry-run").out
    assert said in msport("convert", wide, "-o", output, "--dtype", "bfloat16").out
    narrowed = msport("convert", wide, "-o", tmp_path / "json", "--dtype", "bfloat16", "--json")
    assert json.loads(narrowed.out)["rounded"] == [{"from": "float32", "to": "bfloat16", "tensor_count": 17}]
    kept = msport("convert", wide, "-o", tmp_path / "auto")
    assert kept.out.startswith(f"{tmp_path / 'auto'}: Qwen3ForCausalLM, float32, safetensors\n")
    assert "rounded" not in kept.out


def test_a_conversion_in_several_dtypes_names_them(msport: Run, tmp_path: Path, output: Path) -> None:
    model = write_sample("qwen3", tmp_path / "model", overrides={"num_hidden_layers": 1})
    change_tensors(model, lambda tensors: tensors.update({"model.norm.weight": (FLOAT32, np.ones(128, "f4"))}))
    text = msport("convert", model, "-o", output).out
    assert text.startswith(f"{output}: Qwen3ForCausalLM, bfloat16 (1 tensor float32), safetensors\n")


def test_all_options_reach_the_conversion(msport: Run, model: Path, output: Path) -> None:
    kind = ["--dtype", "mxfp4", "--format", "ckpt"]
    limits = ["--max-shard-size", "400kB", "--max-memory", "200MB", "--workers", 1]
    result = msport("convert", model, "-o", output, *kind, *limits, "--verify", "--json")
    document = json.loads(result.out)
    assert (document["dtype"], document["format"], document["verified"]) == ("mxfp4", "ckpt", True)
    assert len(document["shards"]) == len(list(output.glob("*.ckpt"))) == 4
    assert sum(shard["nbytes"] for shard in document["shards"]) == sum(p.stat().st_size for p in output.glob("*.ckpt"))
    assert document["tensor_count"] == len(read_manifest(output).tensors)


def test_the_output_is_named_after_the_model(
    msport: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert msport("convert", "model").status == 0
    assert (tmp_path / "model-ms" / "msport.json").exists()


def test_a_dry_run_shows_the_plan_and_writes_nothing(msport: Run, model: Path, output: Path) -> None:
    result = msport("convert", model, "-o", output, "--dry-run")
    assert result.status == 0
    for part in (
        "2  model.layers.*.mlp.experts.gate_up_proj         bfloat16 [8, 128, 192]  mxfp4_transposed   786 kB",
        "model.safetensors  37 tensors  2.05 MB",
        "MB needed, ",
        "memory  at most ",
    ):
        assert part in result.out
    assert not output.parent.exists()


def test_the_plan_as_json_holds_every_tensor_and_its_place(msport: Run, model: Path, output: Path) -> None:
    document = json.loads(msport("convert", model, "-o", output, "--dry-run", "--json").out)
    msport("convert", model, "-o", output)
    with open_checkpoint(output) as checkpoint:
        for tensor in document["tensors"]:
            written = checkpoint.tensors[tensor["name"]]
            assert tensor["extents"] == [list(extent) for extent in written.extents]
            assert (tensor["dtype"], tensor["shape"]) == (written.dtype.name, list(written.shape))
        assert len(document["tensors"]) == document["tensor_count"] == len(checkpoint.tensors)
    assert document["disk_nbytes"] <= document["disk_free_nbytes"]
    assert document["memory_nbytes"] <= 10**9


def test_a_dry_run_shows_which_files_are_kept(msport: Run, tmp_path: Path, output: Path) -> None:
    plain = write_sample("qwen2", tmp_path / "plain")
    text = msport("convert", plain, "-o", output, "--dry-run").out
    file = "model-00001-of-00005.safetensors"
    assert f"the source's {file}, byte for byte" in text
    plan = json.loads(msport("convert", plain, "-o", output, "--dry-run", "--json").out)
    assert plan["shards"][0]["kept"] == file


def test_a_dry_run_says_when_the_disk_is_too_small(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msport.convert.output_folder.free_disk", lambda folder: 1000)
    result = msport("convert", model, "-o", output, "--dry-run")
    assert result.status == 2
    assert "disk has 1.00 kB free" in result.err
    assert "shards" in result.out


def test_progress_is_shown_on_a_terminal_alone(model: Path, output: Path) -> None:
    command = [sys.executable, "-m", "msport", "convert", str(model), "-o", str(output)]
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    assert child.stdout is not None
    out = child.stdout.read().decode()
    child.stdout.close()
    assert child.wait() == 0
    shown = read_terminal(master)
    assert "convert: 100%" in shown
    assert "B/s" in shown
    assert out.startswith(f"{output}: ")


def read_terminal(master: int) -> str:
    shown = b""
    with contextlib.suppress(OSError):  # EIO: no process holds the other end any more
        while piece := os.read(master, 4096):
            shown += piece
    os.close(master)
    return shown.decode()


def test_progress_comes_as_json_lines_on_request(msport: Run, model: Path, output: Path) -> None:
    result = msport("convert", model, "-o", output, "--json", "--verify")
    assert json.loads(result.out)["resumed_nbytes"] == 0
    lines = [json.loads(line) for line in result.err.splitlines()]
    assert list(dict.fromkeys(line["phase"] for line in lines)) == ["convert", "read back", "recompute"]
    for phase in ("convert", "read back", "recompute"):
        last = [line for line in lines if line["phase"] == phase][-1]
        assert last["done_nbytes"] == last["total_nbytes"]
        assert last["seconds_left"] == 0
    assert lines[0]["tensor"] in read_manifest(output).tensors
