from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from msport.checkpoint import open_checkpoint, read_manifest
from msport.cli import main
from msport.convert import convert_checkpoint
from msport.convert.progress import Step
from msport.sample import write_sample

SCALES = "model.layers.1.mlp.experts.down_proj_scales"


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def msport(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line through the real entry point."""

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        status = end.value.code
        return Result(status if isinstance(status, int) else 1, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("gpt-oss", tmp_path_factory.mktemp("samples") / "model", overrides={"num_hidden_layers": 2})


@pytest.fixture
def model(pristine: Path, tmp_path: Path) -> Path:
    """A sample that the test may break."""
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "model-ms"


def assert_refused(result: Result, output: Path, *parts: str, kept: bool = False) -> None:
    """One line on stderr that says all `parts`, exit 2, nothing on stdout, and nothing where the output would be.

    With `kept`, beside it lies what had been done, and the line says how to go on.
    """
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("msport: error: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    for part in parts:
        assert part in result.err
    assert not output.exists()
    partial = output.parent / f".{output.name}.msport-partial"
    assert list(output.parent.glob("*")) == ([partial] if kept else [])
    hint = f"; what is done is kept: run the same command again to go on, or remove {partial}\n"
    assert result.err.endswith(hint) is kept


def a_shard(model: Path) -> Path:
    return sorted(model.glob("model-*.safetensors"))[1]


def rewrite_header(shard: Path, change: Callable[[str], str]) -> None:
    """Replace the JSON header, its length included."""
    content = shard.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + length].decode()).encode()
    shard.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


def shift_offsets(text: str) -> str:
    """The header with its first tensor two bytes further on."""
    header = json.loads(text)
    first = next(entry for name, entry in header.items() if name != "__metadata__")
    first["data_offsets"] = [offset + 2 for offset in first["data_offsets"]]
    return json.dumps(header)


def test_a_conversion_prints_what_was_made(msport: Run, model: Path, output: Path) -> None:
    result = msport("convert", model, "-o", output)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(
        f"{output}: GptOssForCausalLM, bfloat16, safetensors\n  37 tensors, 2.05 MB in 1 shard"
    )
    assert read_manifest(output).dtype == "bfloat16"


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


def test_a_dry_run_says_when_the_disk_is_too_small(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msport.convert.staging.free_space", lambda folder: 1000)
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


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (lambda shard: os.truncate(shard, 0), "too few for a safetensors file"),
        (lambda shard: os.truncate(shard, 1000), "truncated"),
        (lambda shard: os.truncate(shard, shard.stat().st_size - 1), "truncated"),
        (lambda shard: shard.write_bytes(shard.read_bytes() + b"x"), "bytes after its last tensor"),
        (lambda shard: shard.write_bytes((10**9).to_bytes(8, "little") + b"{"), "header would be 1000000000 bytes"),
        (lambda shard: rewrite_header(shard, lambda text: text.replace("}}", '},"a":1,"a":2}', 1)), "duplicate key"),
        (lambda shard: rewrite_header(shard, lambda text: text.replace('"BF16"', '"F32"', 1)), "does not fill its"),
        (lambda shard: rewrite_header(shard, shift_offsets), "leaves a hole before it"),
        (lambda shard: rewrite_header(shard, lambda text: "[]"), "does not start with '{'"),
        (lambda shard: shard.unlink(), "no such file; download it"),
    ],
    ids=["empty", "cut-header", "cut-data", "trailing", "oversized", "repeated", "misfit", "hole", "array", "missing"],
)
def test_a_malformed_shard_is_refused_by_name(
    msport: Run, model: Path, output: Path, break_it: Callable[[Path], None], fault: str
) -> None:
    shard = a_shard(model)
    break_it(shard)
    assert_refused(msport("convert", model, "-o", output), output, shard.name, fault)


def change_index(model: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = model / "model.safetensors.index.json"
    document = json.loads(path.read_text())
    change(document["weight_map"])
    path.write_text(json.dumps(document))


def test_index_and_shards_that_disagree_are_refused(msport: Run, model: Path, output: Path) -> None:
    def disagree(weight_map: dict[str, str]) -> None:
        weight_map["no.such.tensor"] = weight_map.pop("lm_head.weight")

    change_index(model, disagree)
    assert_refused(msport("convert", model, "-o", output), output, "no.such.tensor", "lm_head.weight", "index")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors"])
def test_a_shard_outside_the_folder_is_refused(msport: Run, model: Path, output: Path, name: str) -> None:
    change_index(model, lambda weight_map: weight_map.update({"lm_head.weight": name}))
    assert_refused(msport("convert", model, "-o", output), output, name, "index.json")


def test_a_nan_scale_is_refused(msport: Run, model: Path, output: Path) -> None:
    with open_checkpoint(model) as checkpoint:
        shard, begin = checkpoint.files[SCALES], checkpoint.tensors[SCALES].extents[0][0]
    with shard.open("r+b") as file:
        file.seek(begin + 77)
        file.write(b"\xff")
    result = msport("convert", model, "-o", output)
    parts = (shard.name, "layers.1.mlp.experts.down_proj", "255, which is NaN", "download")
    assert_refused(result, output, *parts, kept=True)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"architectures": ["T5Model"]}, ("config.json", "'T5Model' is not supported", "gpt-oss")),
        ({"architectures": None}, ("config.json", "'architectures' must be a list")),
        ({"num_local_experts": None}, ("config.json", "'num_local_experts' is missing")),
        ({"hidden_size": "128"}, ("config.json", "'hidden_size' must be an integer")),
        ({"hidden_size": 96}, ("wrong shape", "lm_head.weight is [1024, 128], config.json says [1024, 96]")),
        ({"num_hidden_layers": 3, "layer_types": None}, ("missing: model.layers.2.",)),
        ({"num_hidden_layers": 1, "layer_types": None}, ("not in the architecture's table: model.layers.1.",)),
        ({"quantization_config": {"quant_method": "gptq"}}, ("config.json", "quantized with 'gptq'")),
    ],
)
def test_a_config_that_is_wrong_or_contradicts_the_tensors_is_refused(
    msport: Run, model: Path, output: Path, fields: dict[str, object], parts: tuple[str, ...]
) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    assert_refused(msport("convert", model, "-o", output), output, *parts)


def test_a_config_that_is_missing_or_no_json_is_refused(msport: Run, model: Path, output: Path) -> None:
    (model / "config.json").write_text("{")
    assert_refused(msport("convert", model, "-o", output), output, "config.json", "not valid JSON")
    (model / "config.json").unlink()
    assert_refused(msport("convert", model, "-o", output), output, "config.json", "no such file")


def test_a_folder_without_weights_is_refused(msport: Run, tmp_path: Path, output: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(msport("convert", tmp_path / "empty", "-o", output), output, "empty", "download")


def test_a_model_that_is_neither_folder_nor_hub_id_is_refused(msport: Run, output: Path) -> None:
    assert_refused(msport("convert", "./nowhere", "-o", output), output, "nowhere", "no such folder")


def test_an_output_folder_that_is_not_empty_is_left_alone(msport: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    result = msport("convert", model, "-o", tmp_path / "full")
    assert result.status == 2
    assert result.err == f"msport: error: {tmp_path}/full: the folder is not empty; name another with -o, or empty it\n"
    assert (tmp_path / "full" / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-memory", "1MB"], "is too small"),
        (["--max-memory", "lots"], "'lots' is not a size"),
        (["--max-shard-size", "0"], "less than one byte"),
        (["--workers", "0"], "at least one"),
        (["--revision", "main"], "has no revision"),
    ],
)
def test_an_option_out_of_range_is_refused(
    msport: Run, model: Path, output: Path, options: list[str], message: str
) -> None:
    assert_refused(msport("convert", model, "-o", output, *options), output, message)


def test_a_disk_that_is_full_from_the_start(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msport.convert.staging.free_space", lambda folder: 1000)
    assert_refused(msport("convert", model, "-o", output), output, "disk has 1.00 kB free", "-o")


@pytest.mark.parametrize(("call", "kept"), [("pwrite", False), ("posix_fallocate", False), ("fdatasync", True)])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fills_up_or_fails_on_the_way(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch, call: str, kept: bool, code: int
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("msport.convert.sinks.SYNC_NBYTES", 1)
    monkeypatch.setattr(os, call, fail)
    result = msport("convert", model, "-o", output, "--workers", 1)
    said = "the disk is full; free space" if code == errno.ENOSPC else "Input/output error"
    assert_refused(result, output, f"{output.parent}/.model-ms.msport-partial/", said, kept=kept)
    monkeypatch.undo()
    assert msport("convert", model, "-o", output).status == 0


def test_a_file_size_limit_of_the_system_ends_in_one_line(model: Path, output: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    command = [sys.executable, "-m", "msport", "convert", str(model), "-o", str(output)]
    child = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    result = Result(child.returncode, child.stdout, child.stderr)
    assert_refused(result, output, "model.safetensors", "File too large")


def test_a_folder_that_may_not_be_written_is_named(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_refused(msport("convert", model, "-o", output), output, "Permission denied", str(output.parent))


@pytest.mark.parametrize(
    ("number", "status", "last"),
    [(signal.SIGINT, 130, "\nmsport: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_ctrl_c_and_sigterm_keep_what_is_done_and_say_how_to_go_on(
    msport: Run, model: Path, output: Path, number: int, status: int, last: str
) -> None:
    script = (
        "import os, time, msport.convert.sinks as s\n"
        "write = s.ShardSink.write\n"
        "def slow(*arguments): write(*arguments); os.write(2, b'written\\n'); time.sleep(0.2)\n"
        "s.ShardSink.write = slow\n"
        "from msport.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "convert", str(model), "-o", str(output)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    child.stderr.readline()
    partial = output.parent / ".model-ms.msport-partial"
    assert list(output.parent.iterdir()) == [partial]
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == status
    assert out == ""
    hint = f"msport: what is done is kept: run the same command again to go on, or remove {partial}\n"
    assert err.replace("written\n", "") == hint + last
    assert list(output.parent.iterdir()) == [partial]
    assert " of it earlier" in msport("convert", model, "-o", output).out
    assert list(output.parent.iterdir()) == [output]


def test_an_error_in_a_real_process_is_one_line_and_with_debug_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "msport", "convert", str(tmp_path), "-o", str(tmp_path / "out")]
    child = subprocess.run(command, capture_output=True, text=True)
    assert_refused(Result(child.returncode, child.stdout, child.stderr), tmp_path / "out" / "x", str(tmp_path))
    debug = subprocess.run([*command[:3], "--debug", *command[3:]], capture_output=True, text=True)
    assert debug.returncode == 2
    assert "Traceback" in debug.stderr


def test_help_shows_every_option_and_examples(msport: Run) -> None:
    text = msport("convert", "--help").out
    for option in ("output", "dtype", "format", "max-shard-size", "max-memory", "dry-run", "json", "verify"):
        assert f"--{option} " in text
    assert "  msport convert openai/gpt-oss-20b\n" in text


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


def interrupt(model: Path, output: Path) -> None:
    """Leave half of a conversion."""

    def stop(step: Step) -> None:
        if step.done > step.total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(model, output, progress=stop, workers=1)


def test_what_an_interrupted_conversion_has_done_shows_in_plan_progress_and_result(
    msport: Run, model: Path, output: Path
) -> None:
    interrupt(model, output)
    plan = json.loads(msport("convert", model, "-o", output, "--dry-run", "--json").out)
    assert 0 < plan["done_nbytes"] < plan["nbytes"] <= plan["disk_occupied_nbytes"]
    text = msport("convert", model, "-o", output, "--dry-run").out
    assert " taken by an unfinished conversion\n" in text
    assert " of 2.05 MB are done already\n" in text
    result = msport("convert", model, "-o", output, "--json")
    first = json.loads(result.err.splitlines()[0])
    assert first["done_nbytes"] == first["resumed_nbytes"] == plan["done_nbytes"]
    assert json.loads(result.out)["resumed_nbytes"] == plan["done_nbytes"]


def test_a_disk_that_is_full_of_the_unfinished_conversion_itself_is_large_enough(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(model, output)
    monkeypatch.setattr("msport.convert.staging.free_space", lambda folder: 200_000)
    assert msport("convert", model, "-o", output, "--dry-run").status == 0
    fresh = output.with_name("elsewhere")
    assert msport("convert", model, "-o", fresh, "--dry-run").status == 2
    assert msport("convert", model, "-o", output).status == 0


def test_another_option_is_refused_before_anything_is_done_and_restart_begins_anew(
    msport: Run, model: Path, output: Path
) -> None:
    interrupt(model, output)
    for options in ((), ("--dry-run",)):
        result = msport("convert", model, "-o", output, "--dtype", "float32", *options)
        assert result.status == 2
        assert "--dtype was 'bfloat16' and is 'float32'; to begin anew, add --restart" in result.err
        assert result.err.count("\n") == 1
    result = msport("convert", model, "-o", output, "--dtype", "float32", "--restart", "--json")
    assert json.loads(result.out)["resumed_nbytes"] == 0


def test_what_is_unfinished_is_not_inspected(msport: Run, model: Path, output: Path) -> None:
    interrupt(model, output)
    partial = output.parent / ".model-ms.msport-partial"
    for path in (partial, partial / "model-ms", partial / "model-ms" / "model.safetensors"):
        for options in ((), ("--verify",)):
            result = msport("inspect", path, *options)
            assert (result.status, result.out) == (2, "")
            assert "belongs to a conversion that is not finished; run the same msport convert" in result.err


def test_a_dry_run_shows_which_files_are_kept(msport: Run, tmp_path: Path, output: Path) -> None:
    plain = write_sample("qwen2", tmp_path / "plain")
    text = msport("convert", plain, "-o", output, "--dry-run").out
    file = "model-00001-of-00005.safetensors"
    assert f"the source's {file}, byte for byte" in text
    plan = json.loads(msport("convert", plain, "-o", output, "--dry-run", "--json").out)
    assert plan["shards"][0]["kept"] == file
