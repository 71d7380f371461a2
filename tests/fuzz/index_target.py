"""``open_checkpoint`` on an index beside two good shards: it is accepted exactly if it describes those it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from checkpoint.attacks.index_files import ATTACKS, GOOD, SHARDS, WEIGHT_MAP

from fuzz.messages import assert_fit_for_a_line
from msport.checkpoint import ShardWriter, ckpt, open_checkpoint, safetensors, strict_json
from msport.checkpoint.dtypes import INT32
from msport.checkpoint.index import INDEX_NAME
from msport.errors import CheckpointError

# One shard alone is a whole checkpoint; a file that the index does not name is not looked at.
PARTS = [WEIGHT_MAP, *(dict.fromkeys(names, file) for file, names in SHARDS.items())]
WORDS = [
    b'"weight_map":{',
    b'"metadata":{',
    b'"total_size":',
    b'"x":',
    b'"y":',
    b'"z":',
    b'"a.safetensors"',
    b'"b.ckpt"',
]
WORDS += [b"../", b"\\u0000", b"\\n", b".safetensors", b".ckpt", b"/", b"\\\\", b":", b"null", b"},", b"[", b"\\ud800"]


def seeds() -> list[bytes]:
    return [GOOD, *(attack.content for attack in ATTACKS.values() if len(attack.content) < 2000)]


def check(path: Path, content: bytes) -> None:
    folder = path.with_suffix(".folder")
    if not folder.exists():
        write_shards(folder)
    (folder / INDEX_NAME).write_bytes(content)
    try:
        with open_checkpoint(folder) as checkpoint:
            files = {name: file.name for name, file in checkpoint.files.items()}
    except CheckpointError as error:
        assert_fit_for_a_line(str(error))
        if described_files(content) is not None:
            raise AssertionError("refused without a reason") from error
        return
    assert files == described_files(content)


def described_files(content: bytes) -> dict[str, str] | None:
    """The file of each tensor, if the index names all tensors of the shards that it names, and no others."""
    try:
        document = strict_json.parse(content)
    except ValueError:
        return None
    files = document.get("weight_map") if isinstance(document, dict) else None
    named = set(files.values()) if files in PARTS else set()
    return {name: file for name, file in WEIGHT_MAP.items() if file in named} or None


def write_shards(folder: Path) -> None:
    folder.mkdir()
    for file, names in SHARDS.items():
        plan = ckpt.plan_layout if file.endswith(".ckpt") else safetensors.plan_layout
        with ShardWriter(folder / file, plan([(name, INT32, (1,)) for name in names])) as writer:
            for name in names:
                writer.write(name, 0, np.zeros(1, np.int32))
