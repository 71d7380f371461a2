"""`msport convert` that ends on the way: full and failing disks, signals; and the same command, going on."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.command import Result, Run, assert_refused
from msport.convert import convert_checkpoint
from msport.progress import Step


@pytest.mark.parametrize(("call", "kept"), [("pwrite", False), ("posix_fallocate", False), ("fdatasync", True)])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fills_up_or_fails_on_the_way(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch, call: str, kept: bool, code: int
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("msport.convert.shard_sink.SYNC_NBYTES", 1)
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


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by SIGTERM")]
)
def test_ctrl_c_and_sigterm_keep_what_is_done_and_say_how_to_go_on(
    msport: Run, model: Path, output: Path, number: int, status: int, word: str
) -> None:
    script = (
        "import os, sys, time, msport.cli as cli\n"
        "def late(name, load=cli.import_module):\n"  # NumPy's threads inherit which signals are blocked
        "    module = load(name)\n"
        "    import msport.convert.shard_sink as s\n"
        "    write = s.ShardSink.write\n"
        "    def slow(*arguments):\n"
        "        write(*arguments); os.write(2, b'written\\n'); sys.stdin.read(); time.sleep(0.2)\n"
        "    s.ShardSink.write = slow\n"
        "    return module\n"
        "cli.import_module = late\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", script, "convert", str(model), "-o", str(output)]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)  # stands still until stdin ends
    assert child.stderr is not None
    child.stderr.readline()
    partial = output.parent / ".model-ms.msport-partial"
    assert list(output.parent.iterdir()) == [partial]
    child.send_signal(number)
    out, err = child.communicate(timeout=600)
    assert child.returncode == status
    assert out == ""
    going_on = f"run the same command again to go on, or remove {partial}\n"
    assert re.fullmatch(rf"msport: {word}; \d+ of 37 tensors are done: {going_on}", err.replace("written\n", ""))
    assert list(output.parent.iterdir()) == [partial]
    assert " of it earlier" in msport("convert", model, "-o", output).out
    assert list(output.parent.iterdir()) == [output]


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
    lines = [json.loads(line) for line in result.err.splitlines()]
    assert list(dict.fromkeys(line["phase"] for line in lines)) == ["check what is there", "convert"]
    first = next(line for line in lines if line["phase"] == "convert")
    assert first["done_nbytes"] == first["resumed_nbytes"] == plan["done_nbytes"]
    assert json.loads(result.out)["resumed_nbytes"] == plan["done_nbytes"]


def test_a_disk_that_is_full_of_the_unfinished_conversion_itself_is_large_enough(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(model, output)
    monkeypatch.setattr("msport.convert.output_folder.free_disk", lambda folder: 200_000)
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
