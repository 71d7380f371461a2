"""MindSpore's wheel brings its Ascend plugin along: whether graph mode has a kernel for an operator stands in it."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import mindspore
import pytest
from acceptance.contracts import CONTRACTS

PLUGIN = Path(mindspore.__file__).parent / "lib" / "plugin" / "libmindspore_ops_ascend.so"


@pytest.fixture(scope="module")
def has_kernel() -> Iterator[Callable[[str], bool]]:
    """Whether the plugin defines a graph kernel of that name; those of PyNative mode (pyboost) do not count."""
    if not PLUGIN.exists():
        pytest.skip("this MindSpore has no Ascend plugin")
    with PLUGIN.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as library:

        def find(operator: str) -> bool:
            # C++ class names: mindspore::kernel::OperatorAscend, or in a namespace of the operator's own; perhaps with
            # the version of CANN's function.
            name = rb"N9mindspore6kernel(?!7pyboost)(?:\d+[a-z0-9_]+?)?\d+(?:Inner)?%s(?:V\d)?AscendE\0"
            return re.search(name % operator.encode(), library) is not None

        yield find


@pytest.mark.parametrize("operator", sorted({contract.operator for contract in CONTRACTS}))
def test_graph_mode_has_a_kernel_for_every_fused_operator(operator: str, has_kernel: Callable[[str], bool]) -> None:
    assert has_kernel(operator)


def test_an_operator_that_only_infer_boost_has_is_not_taken_for_one(has_kernel: Callable[[str], bool]) -> None:
    assert not has_kernel("ReshapeAndCache")
