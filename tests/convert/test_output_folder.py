from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from msport.convert import output_folder
from msport.convert.output_folder import Staging, check_space, resolve_output
from msport.errors import OutputError


def test_the_folder_appears_whole_on_commit(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    with Staging(output) as staging:
        staging.clear()
        (staging.folder / "file").write_text("x")
        assert not output.exists()
        staging.commit()
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert (output / "file").read_text(encoding="utf-8") == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_nothing_remains_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with Staging(tmp_path / "out") as staging:
            staging.clear()
            (staging.folder / "file").write_text("x")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_to_be_kept_outlives_an_error(tmp_path: Path, kept: bool) -> None:
    def fail() -> None:
        with Staging(tmp_path / "out") as staging:
            staging.clear()
            (staging.folder / "file").write_text("x")
            staging.journal.touch()
            if not kept:
                staging.forget()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  raised two lines above
        fail()
    assert (tmp_path / ".out.msport-partial" / "out" / "file").exists() is kept
    with Staging(tmp_path / "out") as staging:
        assert staging.kept is kept


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with Staging(resolve_output(output)) as staging:
        staging.clear()
        (staging.folder / "file").touch()
        staging.commit()
    assert [path.name for path in output.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    remains = tmp_path / ".out.msport-partial"
    (remains / "folder").mkdir(parents=True)
    (remains / "stale").write_text("x")
    (remains / "folder" / "stale").write_text("x")
    (remains / "link").symlink_to(tmp_path)
    with Staging(tmp_path / "out") as staging:
        assert (staging.partial / "stale").exists()
        staging.clear()
        assert list(staging.folder.iterdir()) == []
        staging.commit()
    assert tmp_path.exists()
    assert not remains.exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_not_our_folder_is_never_emptied(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    in_the_way = tmp_path / ".out.msport-partial"
    if kind == "link":
        in_the_way.symlink_to(precious)
    else:
        in_the_way.touch()
    with pytest.raises(OutputError, match="is in the way; remove it"), Staging(tmp_path / "out"):
        pass
    assert (precious / "file").exists()
    assert in_the_way.exists()


def _hold(output: Path, ready: object, release: object) -> None:
    with Staging(output):
        ready.set()  # type: ignore[attr-defined]
        release.wait(600)  # type: ignore[attr-defined]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_folder, "PATIENCE", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_second_process_on_the_same_output_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(tmp_path / "out", ready, release))
    first.start()
    assert ready.wait(600)
    try:
        refusal = rf"another msport process( \({first.pid}\))? is writing here; wait for it"
        with pytest.raises(OutputError, match=refusal), Staging(tmp_path / "out"):
            pass
        assert (tmp_path / ".out.msport-partial").is_dir()
    finally:
        release.set()
        first.join()
    with Staging(tmp_path / "out") as staging:
        staging.clear()
        staging.commit()


def test_a_folder_that_fills_up_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "out"

    def convert() -> None:
        with Staging(output) as staging:
            staging.clear()
            (staging.folder / "ours").touch()
            output.mkdir()
            (output / "theirs").touch()
            staging.commit()

    with pytest.raises(OutputError, match="appeared while it was written"):
        convert()
    assert [path.name for path in output.iterdir()] == ["theirs"]


def test_a_folder_that_is_not_empty_a_file_and_a_mount_point_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"not empty; name another with `output` \(-o\)"):
        resolve_output(tmp_path)
    (tmp_path / "msport.json").touch()
    with pytest.raises(
        OutputError, match=r"is a finished conversion already; use it, remove it, or name another with `output` \(-o\)"
    ):
        resolve_output(tmp_path)
    with pytest.raises(OutputError, match=r"is a file; name another with `output` \(-o\)"):
        resolve_output(tmp_path / "file")
    with pytest.raises(OutputError, match="mount point"):
        resolve_output(Path("/proc"))


def test_a_symbolic_link_leads_to_where_the_folder_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    output = resolve_output(tmp_path / "link")
    with Staging(output) as staging:
        staging.clear()
        staging.commit()
    assert (tmp_path / "real").is_dir()
    assert (tmp_path / "link").is_symlink()


def test_space_is_measured_on_the_disk_of_the_nearest_folder_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "a" / "b"
    monkeypatch.setattr("shutil.disk_usage", {tmp_path: SimpleNamespace(free=2000)}.__getitem__)
    check_space(missing, 2000)
    check_space(missing, 5000, occupied=3000)
    with pytest.raises(OutputError, match=r"needs 2\.50 kB more, and the disk has 2\.00 kB free"):
        check_space(missing, 5000, occupied=2500)
    with pytest.raises(OutputError, match=r"needs 3\.00 kB, and the disk has 2\.00 kB free; free space, or choose"):
        check_space(missing, 3000)


HOLD = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.usefixtures("impatient")
def test_a_holder_that_is_stopped_is_named_and_once_killed_does_not_stand_in_the_way(tmp_path: Path) -> None:
    partial = tmp_path / ".out.msport-partial"
    partial.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, partial], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(OutputError, match="another msport process") as error, Staging(tmp_path / "out"):
            pass
        if "(" in str(error.value):  # where the system tells who holds a lock
            assert f"another msport process ({holder.pid}, which is stopped) is writing here" in str(error.value)
    finally:
        holder.kill()
        holder.communicate()
    with Staging(tmp_path / "out"):
        pass


def test_a_lock_that_is_about_to_be_given_up_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = tmp_path / ".out.msport-partial"
    partial.mkdir()
    dying = os.open(partial, os.O_RDONLY)
    fcntl.flock(dying, fcntl.LOCK_EX)
    tries = []
    lock = fcntl.flock

    def give_up_at_the_third(descriptor: int, operation: int) -> None:
        tries.append(descriptor)
        if len(tries) == 3:
            os.close(dying)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", give_up_at_the_third)
    with Staging(tmp_path / "out") as staged:
        staged.clear()
    assert len(tries) == 3


def test_an_output_that_is_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("out")
    with pytest.raises(OutputError, match="is a symbolic link that leads back to itself; name another with `output`"):
        resolve_output(tmp_path / "out")
