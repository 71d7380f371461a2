"""Families of tensors that property tests draw from, and what of the files that hold them is open."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from msport.checkpoint import dtypes
from msport.checkpoint.dtypes import DType

TensorSpecs = list[tuple[str, DType, tuple[int, ...]]]

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def tensor_specs(candidates: tuple[DType, ...] = dtypes.DTYPES) -> st.SearchStrategy[TensorSpecs]:
    """Up to six tensors of different names, any dtype, any shape up to rank 4, empty and rank-0 ones included."""
    return st.lists(st.tuples(names, st.sampled_from(candidates), shapes), max_size=6, unique_by=lambda spec: spec[0])


def content_of(specs: TensorSpecs, seed: int) -> dict[str, NDArray[Any]]:
    """Random bytes for each tensor, in storage form."""
    generator = np.random.default_rng(seed)
    contents = {}
    for name, dtype, shape in specs:
        high = 2 if dtype is dtypes.BOOL else 256
        raw = generator.integers(0, high, math.prod(shape) * dtype.itemsize, dtype=np.uint8)
        contents[name] = raw.view(dtype.storage).reshape(shape)
    return contents


def open_files(folder: Path) -> int:
    """How many files below `folder` this process has open."""
    links = (f"/proc/self/fd/{entry}" for entry in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith(str(folder)) for link in links if os.path.islink(link))
