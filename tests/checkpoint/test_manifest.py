"""``msport.json``: written last, read with suspicion."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msport.checkpoint import Manifest, TensorRecord, read_manifest, write_manifest
from msport.checkpoint.dtypes import BFLOAT16, DTYPES, FLOAT32, UINT8
from msport.checkpoint.manifest import checkpoint_hash
from msport.errors import CheckpointError

MANIFEST = Manifest(
    source="openai/gpt-oss-20b",
    revision="6cee5e81ee83917806bbde320786a8fb61efebee",
    source_format="mxfp4",
    msport_version="0.1.0",
    dtype="bfloat16",
    format="safetensors",
    tensors={
        "w": TensorRecord(BFLOAT16, (3, 2), "model-00001-of-00002.safetensors", ((80, 92),), "ab" * 32),
        "sliced": TensorRecord(FLOAT32, (2,), "model-00002-of-00002.ckpt", ((10, 15), (20, 23)), "cd" * 32),
        "scalar": TensorRecord(UINT8, (), "model-00002-of-00002.ckpt", ((40, 41),), "ef" * 32),
    },
    fetched={"config.json": "git", "model-00001-of-00002.safetensors": "length"},
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
records = st.builds(
    lambda dtype, size, begin, file, digest: TensorRecord(
        dtype, (size,), file, ((begin, begin + size * dtype.itemsize),), digest.hex()
    ),
    st.sampled_from(DTYPES),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(0, 99).map("model-{}.safetensors".format),
    st.binary(min_size=32, max_size=32),
)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["msport.json"]


@given(
    st.builds(
        Manifest,
        source=text,
        revision=st.none() | text,
        source_format=text,
        msport_version=text,
        dtype=text,
        format=text,
        tensors=st.dictionaries(text, records, max_size=3),
    )
)
def test_every_manifest_survives_json(manifest: Manifest) -> None:
    assert Manifest.from_document(json.loads(json.dumps(manifest.to_document()))) == manifest


def changed(path: tuple[str, ...], value: Any) -> str:
    document = MANIFEST.to_document()
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "not JSON"),
        ("[]", "the manifest is not exactly schema, source"),
        ('{"schema": 1, "schema": 1}', "duplicate key 'schema'"),
        (changed(("schema",), 2), "schema 2 is not 1"),
        (changed(("schema",), True), "schema is of type bool"),
        (changed(("source",), ...), "the manifest is not exactly"),
        (changed(("more",), 1), "the manifest is not exactly"),
        (changed(("revision",), 1), "revision is of type int"),
        (changed(("tensors",), []), "tensors is of type list"),
        (changed(("fetched",), []), "fetched is of type list"),
        (changed(("fetched",), {"config.json": "somehow"}), "are not each one of sha256, git, length"),
        (changed(("fetched",), {"config.json": []}), "are not each one of sha256, git, length"),
        (changed(("tensors", "w"), []), "tensor 'w' is not exactly dtype, shape, file, extents, sha256"),
        (changed(("tensors", "w", "sha256"), ...), "tensor 'w' is not exactly"),
        (changed(("tensors", "w", "sha256"), "AB"), "tensor 'w': sha256 is not 64 hexadecimal digits"),
        (changed(("tensors", "w", "dtype"), "half"), "unknown dtype 'half'"),
        (changed(("tensors", "w", "shape"), [3, -2]), "tensor 'w': .* is not a list of non-negative integers"),
        (changed(("tensors", "w", "shape"), [3, True]), "tensor 'w': .* is not a list of non-negative integers"),
        (changed(("tensors", "w", "shape"), [3, 3]), "tensor 'w': its extents do not add up to its shape"),
        (changed(("tensors", "w", "extents"), [80, 92]), "tensor 'w': 80 is not a list"),
        (changed(("tensors", "w", "extents"), [[92, 80]]), "extents are not pairs of begin and end"),
        (changed(("tensors", "w", "extents"), [[80, 85, 92]]), "extents are not pairs of begin and end"),
        (
            changed(("tensors", "w", "file"), "../x.safetensors"),
            "tensor 'w': '../x.safetensors' is not a plain file name",
        ),
        (changed(("tensors", "w", "file"), "/x.safetensors"), "is not a plain file name"),
    ],
)
def test_an_invalid_manifest_is_refused(content: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "msport.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"msport\.json: .*{fault}.*; convert the model again$") as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)


def test_a_manifest_from_before_files_were_fetched_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "msport.json").write_text(changed(("fetched",), ...))
    assert read_manifest(tmp_path) == replace(MANIFEST, fetched={})


def test_a_manifest_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    os.truncate(tmp_path / "msport.json", 2**40)
    with pytest.raises(CheckpointError, match="larger than 100000000 bytes"):
        read_manifest(tmp_path)


def test_a_source_folder_whose_name_is_not_utf_8_costs_only_its_letters(tmp_path: Path) -> None:
    write_manifest(tmp_path, replace(MANIFEST, source=os.fsdecode(b"/models/caf\xe9")))
    assert read_manifest(tmp_path) == replace(MANIFEST, source="/models/caf?")


def test_a_missing_manifest_says_that_the_conversion_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a finished msport conversion, run msport convert"):
        read_manifest(tmp_path)


def test_the_hash_of_a_checkpoint_changes_with_any_tensor() -> None:
    for name, record in MANIFEST.tensors.items():
        changed = replace(MANIFEST, tensors={**MANIFEST.tensors, name: replace(record, sha256="0" * 64)})
        assert checkpoint_hash(changed) != checkpoint_hash(MANIFEST)
    reordered = replace(MANIFEST, tensors=dict(reversed(MANIFEST.tensors.items())))
    assert checkpoint_hash(reordered) == checkpoint_hash(MANIFEST)
