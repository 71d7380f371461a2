"""An interrupted conversion: what goes on, what is refused, and what begins anew."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from convert.hub_folder import change_config
from msport.checkpoint import Manifest
from msport.convert import Options, convert_checkpoint, inspect_path, journal, prepare, verify_folder
from msport.convert.conversion import find_unfinished
from msport.convert.resume import done_nbytes, kept_after
from msport.errors import CheckpointError, OutputError, UsageError
from msport.progress import Step

OPTIONS = {"max_shard_size": "300kB", "workers": 1}


def stop_after(model: Path, output: Path, share: float, **options: object) -> None:
    """Interrupt a conversion when `share` of its bytes are done."""

    def interrupt(step: Step) -> None:
        if step.done >= share * step.total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(model, output, progress=interrupt, **{**OPTIONS, **options})  # type: ignore[arg-type]


def resume(model: Path, output: Path, **options: object) -> tuple[Manifest, list[Step]]:
    """Convert; returns the manifest, and the steps of converting itself."""
    steps: list[Step] = []
    manifest = convert_checkpoint(model, output, progress=steps.append, **{**OPTIONS, **options})  # type: ignore[arg-type]
    return manifest, [step for step in steps if step.phase == "convert"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / ".out.msport-partial"


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_the_same_call_resumes_to_the_same_bytes(
    packed_sample: Path, tmp_path: Path, partial: Path, share: float, file_format: str
) -> None:
    stop_after(packed_sample, tmp_path / "out", share, format=file_format)
    conversion = prepare(packed_sample, tmp_path / "out", Options(format=file_format, max_shard_size="300kB"))
    done = done_nbytes(find_unfinished(conversion), conversion.plan)
    _, steps = resume(packed_sample, tmp_path / "out", format=file_format)
    assert steps[0].done == steps[0].resumed == done >= share * steps[0].total * 0.99
    assert steps[-1].done == steps[-1].total
    assert not partial.exists()
    resume(packed_sample, tmp_path / "straight", format=file_format)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    verify_folder(tmp_path / "out")


def test_what_is_made_anew_goes_after_the_manifest_that_says_all_is_there(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []

    def interrupt(*arguments: Path) -> None:
        removed.extend(path.name for path in arguments if isinstance(path, Path))
        raise KeyboardInterrupt

    for call in ("output_folder.Staging.commit", "resume.remove"):
        with monkeypatch.context() as patch:
            patch.setattr(f"msport.convert.{call}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                convert_checkpoint(packed_sample, tmp_path / "out", max_shard_size="300kB")
    assert removed == ["msport.json"]


def test_memory_workers_and_verify_may_change_meanwhile(packed_sample: Path, tmp_path: Path) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.4, workers=2)
    manifest, steps = resume(packed_sample, tmp_path / "out", workers=3, max_memory="100MB", verify=True)
    assert steps[0].resumed
    assert manifest == resume(packed_sample, tmp_path / "straight")[0]


def test_a_conversion_resumes_with_another_slab_size(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slab_rows = "msport.convert.workers.slab_rows"
    monkeypatch.setattr(slab_rows, lambda tensor, nbytes: 96)
    stop_after(packed_sample, tmp_path / "out", 0.5, dtype="float32")
    monkeypatch.setattr(slab_rows, lambda tensor, nbytes: 64)
    manifest, _ = resume(packed_sample, tmp_path / "out", dtype="float32")
    monkeypatch.undo()
    assert manifest == resume(packed_sample, tmp_path / "straight", dtype="float32")[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "float16"}, "`dtype` (--dtype) was 'bfloat16' and is 'float16'"),
        ({"format": "ckpt"}, "`format` (--format) was 'safetensors' and is 'ckpt'"),
        ({"max_shard_size": "1MB"}, "`max_shard_size` (--max-shard-size) was another"),
    ],
)
def test_another_option_is_refused_and_changes_nothing_unless_restart(
    packed_sample: Path, tmp_path: Path, partial: Path, options: dict[str, str], said: str
) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.5)
    before = contents(partial / "out")
    with pytest.raises(OutputError) as error:
        resume(packed_sample, tmp_path / "out", **options)
    assert str(error.value) == (
        f"{partial}: holds an unfinished conversion, and {said}; to begin anew, add `restart` (--restart), or name"
        " another folder with `output` (-o)"
    )
    assert contents(partial / "out") == before
    _, steps = resume(packed_sample, tmp_path / "out", **options, restart=True)
    assert steps[0].resumed == 0
    verify_folder(tmp_path / "out")


@pytest.mark.parametrize("clock", ["forwards", "backwards"])
def test_a_source_that_changed_is_refused_by_file(
    packed_sample: Path, tmp_path: Path, copy_of: Callable[[Path], Path], clock: str
) -> None:
    model = copy_of(packed_sample)
    stop_after(model, tmp_path / "out", 0.5)
    shard = max(model.glob("model-*"))
    then = 4 * 10**18 if clock == "forwards" else 10**9
    os.utime(shard, ns=(then, then))
    with pytest.raises(OutputError, match=rf"an unfinished conversion, and {shard.name} changed since; .*--restart"):
        resume(model, tmp_path / "out")


def test_another_model_and_another_version_are_refused(
    packed_sample: Path, wide_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.5)
    with pytest.raises(OutputError, match=r"the source was .*packed' and is .*wide'"):
        resume(wide_sample, tmp_path / "out")
    monkeypatch.setattr("msport.convert.resume.__version__", "99.0")
    with pytest.raises(OutputError, match=r"msport's version was .* and is '99.0'"):
        resume(packed_sample, tmp_path / "out")


def test_a_config_that_changes_no_tensor_may_change(
    wide_sample: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    model = copy_of(wide_sample)
    stop_after(model, tmp_path / "out", 0.5, max_shard_size="5GB")
    change_config(model, rope_theta=20000.0)
    _, steps = resume(model, tmp_path / "out", max_shard_size="5GB")
    assert steps[0].resumed
    assert json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["rope_theta"] == 20000.0


@pytest.mark.parametrize("damage", ["gone", "cut", "link"])
def test_a_changed_shard_is_made_again(packed_sample: Path, tmp_path: Path, partial: Path, damage: str) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.6)
    shard = min((partial / "out").glob("model-*"))
    if damage == "cut":
        os.truncate(shard, 1000)
    else:
        shard.unlink()
    if damage == "link":
        (tmp_path / "precious").write_bytes(b"precious")
        shard.symlink_to(tmp_path / "precious")
    manifest, steps = resume(packed_sample, tmp_path / "out", verify=True)
    assert steps[0].resumed
    assert manifest == resume(packed_sample, tmp_path / "straight")[0]
    if damage == "link":
        assert (tmp_path / "precious").read_bytes() == b"precious"


def test_after_a_power_failure_only_what_was_on_disk_is_kept(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.6)
    conversion = prepare(packed_sample, tmp_path / "out", Options(max_shard_size="300kB"))
    killed = done_nbytes(find_unfinished(conversion), conversion.plan)
    monkeypatch.setattr(journal, "boot_id", lambda: "another")
    down = done_nbytes(find_unfinished(conversion), conversion.plan)
    assert 0 < down < killed
    manifest, _ = resume(packed_sample, tmp_path / "out", verify=True)
    assert manifest == resume(packed_sample, tmp_path / "straight")[0]


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"00000000 []\n"])
def test_a_journal_that_cannot_be_read_means_beginning_anew(
    packed_sample: Path, tmp_path: Path, partial: Path, content: bytes
) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.6)
    (partial / "journal").write_bytes(content)
    _, steps = resume(packed_sample, tmp_path / "out")
    assert steps[0].resumed == 0
    verify_folder(tmp_path / "out")


def test_a_journal_with_impossible_claims_is_ignored(packed_sample: Path, tmp_path: Path, partial: Path) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.3)
    with (partial / "journal").open("ab") as file:
        for claim in (["written", 3, 10**15], ["hashed", 10**6, "0" * 64], ["closed", 10**6], ["written", 10**6, 1]):
            file.write(journal._line(claim))
    manifest, _ = resume(packed_sample, tmp_path / "out", verify=True)
    assert manifest == resume(packed_sample, tmp_path / "straight")[0]


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fsync", "preadv"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_after_a_disk_error_the_same_call_resumes(
    packed_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    original = getattr(os, call)
    calls = 0
    allowed = 1 if call == "fdatasync" else 12  # rounds of it are as many as the disk is quick, but one in any case

    def fail(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > allowed:
            raise OSError(code, os.strerror(code))
        return original(*arguments)

    monkeypatch.setattr("msport.convert.shard_sink.SYNC_NBYTES", 50_000)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=os.strerror(code)) as error:
        resume(packed_sample, tmp_path / "out")
    assert error.value.filename is not None
    monkeypatch.undo()
    manifest, steps = resume(packed_sample, tmp_path / "out", verify=True)
    assert steps[0].resumed
    assert manifest == resume(packed_sample, tmp_path / "straight")[0]


def test_what_can_never_succeed_is_not_kept(wide_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OverflowError

    monkeypatch.setattr("msport.convert.transforms.cast_exactly", refuse)
    monkeypatch.setattr("msport.convert.execute.overflowing", lambda tensors, *_: [(tensors[0], 1e6)])
    with pytest.raises(UsageError, match="float16 cannot hold"):
        resume(wide_sample, tmp_path / "out", dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_vanishes_is_named_and_what_is_done_is_kept(
    packed_sample: Path, tmp_path: Path, partial: Path, copy_of: Callable[[Path], Path]
) -> None:
    from msport.convert import run

    model = copy_of(packed_sample)
    conversion = prepare(model, tmp_path / "out", Options(workers=1))
    shard = max(model.glob("model-*"))
    shard.rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=f"{shard.name}: vanished after its header was read"):
        run(conversion)
    assert partial.exists()
    (tmp_path / "away").rename(shard)
    assert (
        convert_checkpoint(model, tmp_path / "out").tensors
        == resume(packed_sample, tmp_path / "s", max_shard_size="5GB")[0].tensors
    )


def test_what_is_unfinished_is_no_checkpoint_to_inspect(packed_sample: Path, tmp_path: Path, partial: Path) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.6)
    shard = min((partial / "out").glob("model-*"))
    for path in (partial, partial / "out", shard):
        with pytest.raises(UsageError, match=f"belongs to a conversion that is not finished; .* or remove {partial}"):
            inspect_path(path)
    with pytest.raises(CheckpointError):
        verify_folder(partial / "out")


def test_a_link_in_the_place_of_the_folder_is_not_followed(packed_sample: Path, tmp_path: Path, partial: Path) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.6)
    (partial / "out").rename(tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    (partial / "out").symlink_to(tmp_path / "elsewhere")
    _, steps = resume(packed_sample, tmp_path / "out")
    assert steps[0].resumed == 0
    assert contents(tmp_path / "elsewhere") == before


def test_a_journal_that_is_a_pipe_is_refused_and_restart_removes_it(
    packed_sample: Path, tmp_path: Path, partial: Path
) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.6)
    (partial / "journal").unlink()
    os.mkfifo(partial / "journal")
    with pytest.raises(CheckpointError, match=f"{partial}/journal: is a named pipe, not a file; remove it"):
        resume(packed_sample, tmp_path / "out")
    _, steps = resume(packed_sample, tmp_path / "out", restart=True)
    assert steps[0].resumed == 0
    verify_folder(tmp_path / "out")


def flip(path: Path, offset: int) -> None:
    """Damage one bit of a file, and leave its times as they were."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_finished_tensor_that_was_damaged_meanwhile_is_made_again(
    packed_sample: Path,
    tmp_path: Path,
    partial: Path,
    share: float,
    file_format: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop_after(packed_sample, tmp_path / "out", share, format=file_format)
    plan = prepare(packed_sample, tmp_path / "out", Options(format=file_format, max_shard_size="300kB")).plan
    replay = journal.read_journal(partial / "journal")
    assert replay is not None
    number = max(replay.done.hashes)
    tensor = plan.tensors[number]
    flip(partial / "out" / tensor.file, tensor.extents[0][0] + tensor.nbytes // 2)
    manifest, steps = resume(packed_sample, tmp_path / "out", format=file_format)
    assert 0 < steps[0].resumed < steps[0].total
    assert caplog.messages == [f"{partial}/out: {tensor.name} was damaged after it was written: it is made again"]
    assert manifest == resume(packed_sample, tmp_path / "straight", format=file_format)[0]
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_a_finished_shard_whose_header_was_damaged_meanwhile_gets_it_again(
    packed_sample: Path, tmp_path: Path, partial: Path, file_format: str
) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.7, format=file_format)
    plan = prepare(packed_sample, tmp_path / "out", Options(format=file_format, max_shard_size="300kB")).plan
    replay = journal.read_journal(partial / "journal")
    assert replay is not None
    shard = plan.shards[min(replay.done.shards)]
    flip(partial / "out" / shard.file, shard.layout.literals[-1][0] + 3)
    _, steps = resume(packed_sample, tmp_path / "out", format=file_format)
    assert steps[0].resumed >= 0.6 * steps[0].total
    resume(packed_sample, tmp_path / "straight", format=file_format)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_stop_while_what_is_there_is_checked_keeps_it(packed_sample: Path, tmp_path: Path) -> None:
    stop_after(packed_sample, tmp_path / "out", 0.7)

    def interrupt(step: Step) -> None:
        assert step.phase == "check what is there"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        convert_checkpoint(packed_sample, tmp_path / "out", progress=interrupt, **OPTIONS)  # type: ignore[arg-type]
    assert kept_after(error.value) == tmp_path / ".out.msport-partial"
    _, steps = resume(packed_sample, tmp_path / "out")
    assert steps[0].resumed >= 0.6 * steps[0].total
