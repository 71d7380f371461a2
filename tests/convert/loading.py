"""Loads every shard of converted folders with MindSpore alone, in bounded memory. Run as a script.

    python loading.py ALLOWANCE FOLDER...

Once MindSpore is up, the process may take ALLOWANCE bytes more than it has for each shard (RLIMIT_DATA).
Prints per folder the number of tensors, each compared with what msport reads from the same bytes.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
from pathlib import Path
from typing import Any

import mindspore
import numpy as np

from msport.checkpoint import TensorFile


def main(allowance: int, folders: list[Path]) -> None:
    load(min(shards(folders[0])))  # starts whatever threads MindSpore loads with
    gc.freeze()  # a collection then looks at what the shards left, not at all of MindSpore
    counts = {}
    for folder in folders:
        index = json.loads((folder / "param_name_map.json").read_text(encoding="utf-8"))["weight_map"]
        counts[str(folder)] = 0
        for shard in shards(folder):
            gc.collect()
            resource.setrlimit(resource.RLIMIT_DATA, (data_nbytes() + allowance, resource.RLIM_INFINITY))
            counts[str(folder)] += compare(shard, index)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(json.dumps(counts))


def shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".ckpt"))


def load(shard: Path) -> dict[str, Any]:
    return dict(mindspore.load_checkpoint(str(shard), format=shard.suffix.removeprefix(".")))


def compare(shard: Path, index: dict[str, str]) -> int:
    """Compare names, dtypes, shapes and values of one shard; returns its number of tensors."""
    loaded = load(shard)
    assert loaded.keys() == {name for name, file in index.items() if file == shard.name}
    with TensorFile(shard) as file:
        for name, parameter in loaded.items():
            dtype, values = file.header.tensors[name].dtype, file.view(name)
            assert str(parameter.dtype).lower() == dtype.name
            assert parameter.shape == values.shape
            held = np.frombuffer(parameter.get_bytes(), values.dtype)  # NumPy has no bfloat16 to ask for
            np.testing.assert_array_equal(held, values.reshape(-1), err_msg=name)
    return len(loaded)


def data_nbytes() -> int:
    with open("/proc/self/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
