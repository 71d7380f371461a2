"""Where the bytes of a tensor lie."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, UINT8


@given(pieces=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=6), data=st.data())
def test_a_range_of_a_sliced_tensor_is_found_byte_by_byte(pieces: list[tuple[int, int]], data: st.DataObject) -> None:
    extents: list[tuple[int, int]] = []
    positions: list[int] = []
    position = 0
    for gap, length in pieces:
        position += gap
        extents.append((position, position + length))
        positions += range(position, position + length)
        position += length
    info = TensorInfo("w", UINT8, (len(positions),), tuple(extents))
    begin = data.draw(st.integers(0, len(positions)))
    end = data.draw(st.integers(begin, len(positions)))
    found = info.locate(begin, end)
    assert [byte for low, high in found for byte in range(low, high)] == positions[begin:end]
    assert all(low < high for low, high in found)


def test_a_scalar_has_the_bytes_of_one_element_and_an_empty_tensor_none() -> None:
    assert TensorInfo("w", BFLOAT16, (), ((0, 2),)).nbytes == 2
    assert TensorInfo("w", BFLOAT16, (3, 0), ((0, 0),)).nbytes == 0
    assert TensorInfo("w", BFLOAT16, (3, 5), ((0, 30),)).nbytes == 30
