from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.convert import journal
from msport.convert.journal import Done, Journal, read_journal, replay

HASH = "0123456789abcdef" * 4
FINGERPRINT = {"source": "somewhere", "files": {"a.safetensors": "7 bytes"}}


def write(path: Path, done: Done | None = None) -> None:
    written = Journal(path, FINGERPRINT, done or Done())
    written.written(0, 100)
    written.mark()
    written.written(1, 50)
    written.synced()
    written.hashed(0, HASH)
    written.closed(2)
    written.close()


WHOLE = Done({0: 100, 1: 50}, {0: HASH}, {2})


def done_of(path: Path) -> Done:
    found = read_journal(path)
    assert found is not None
    assert found.fingerprint == FINGERPRINT
    return found.done


def test_after_a_kill_every_claim_counts(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    assert done_of(tmp_path / "journal") == WHOLE


@pytest.mark.parametrize("boot", ["another", None])
def test_after_the_machine_went_down_only_what_is_on_disk_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: str | None
) -> None:
    write(tmp_path / "journal")
    monkeypatch.setattr(journal, "boot_id", lambda: boot)
    assert done_of(tmp_path / "journal") == Done({0: 100}, {}, {2})


def test_without_a_boot_id_only_claims_that_are_on_disk_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_BOOT_ID", tmp_path / "none")
    write(tmp_path / "journal")
    assert done_of(tmp_path / "journal") == Done({0: 100}, {}, {2})


def test_a_new_journal_claims_what_was_done_before_as_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(tmp_path / "journal", FINGERPRINT, WHOLE).close()
    monkeypatch.setattr(journal, "boot_id", lambda: "another")
    assert done_of(tmp_path / "journal") == WHOLE


def test_a_journal_replaces_the_one_that_was_there(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    write(tmp_path / "journal", Done({7: 1}, {}, set()))
    assert done_of(tmp_path / "journal") == Done({7: 1, **WHOLE.written}, WHOLE.hashes, WHOLE.shards)
    assert os.listdir(tmp_path) == ["journal"]


def test_no_file_an_empty_one_and_a_link_are_no_journal(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal") is None
    write(tmp_path / "elsewhere")
    (tmp_path / "journal").symlink_to(tmp_path / "elsewhere")
    assert read_journal(tmp_path / "journal") is None
    (tmp_path / "journal").unlink()
    (tmp_path / "journal").touch()
    assert read_journal(tmp_path / "journal") is None


def test_wherever_the_file_is_cut_it_claims_nothing_that_was_not_claimed(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    content = (tmp_path / "journal").read_bytes()
    seen = set()
    for end in range(len(content)):
        found = replay(content[:end].splitlines(keepends=True), journal.boot_id())
        if found is None:
            assert content[:end].count(b"\n") == 0
        else:
            assert found.done.written.items() <= WHOLE.written.items()
            assert found.done.hashes.items() <= WHOLE.hashes.items()
            assert found.done.shards <= WHOLE.shards
            seen.add(len(found.done.written) + len(found.done.hashes) + len(found.done.shards))
    assert seen == {0, 1, 2, 3}


@settings(max_examples=200)
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_byte_that_changes_on_disk_is_never_believed(
    position: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    write(path)
    content = bytearray(path.read_bytes())
    position %= len(content)
    if content[position] == byte:
        return
    content[position] = byte
    found = replay(bytes(content).splitlines(keepends=True), journal.boot_id())
    if found is not None:
        assert found.fingerprint == FINGERPRINT
        assert found.done.written.items() <= WHOLE.written.items()
        assert found.done.hashes.items() <= WHOLE.hashes.items()
        assert found.done.shards <= WHOLE.shards


@settings(max_examples=200)
@given(
    claims=st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(["written", "hashed", "closed", "mark", "synced", HASH]),
                st.integers(-5, 5),
                st.booleans(),
                st.none(),
                st.lists(st.integers(), max_size=2),
            ),
            max_size=4,
        ),
        max_size=6,
    )
)
def test_lines_with_a_right_checksum_and_any_content_are_read_or_ignored(claims: list[list[object]]) -> None:
    head = ["journal", journal.VERSION, "boot", FINGERPRINT]
    found = replay(map(journal._line, [head, *claims]), "boot")
    assert found is not None
    assert all(type(number) is int and number >= 0 for pair in found.done.written.items() for number in pair)
    assert all(type(number) is int and len(sha256) == 64 for number, sha256 in found.done.hashes.items())


def test_a_head_of_another_version_is_no_journal() -> None:
    assert replay([journal._line(["journal", journal.VERSION + 1, None, FINGERPRINT])], None) is None
    assert replay([journal._line(["journal"])], None) is None
    assert replay([b"garbage\n"], None) is None
    assert replay([], None) is None


def test_a_disk_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Journal(tmp_path / "journal", FINGERPRINT, Done())

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as error:
        written.written(0, 1)
    assert error.value.filename == str(tmp_path / "journal")
    written.close()
    written.close()
