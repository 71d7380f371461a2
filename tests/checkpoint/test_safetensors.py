"""The safetensors format: what is accepted, what is refused, and how the library sees the same bytes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from msport.checkpoint import ShardWriter, TensorFile, dtypes, safetensors
from msport.errors import CheckpointError

from .attacks.safetensors_files import ATTACKS, GOOD, entry, file_of
from .families import TensorSpecs, content_of, tensor_specs


def library_accepts(content: bytes) -> bool:
    try:
        deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError:
        return False
    return True


def accepts(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        safetensors.read_header(path)
    except CheckpointError:
        return False
    return True


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_in_one_line_that_names_file_fault_and_remedy(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(attack.content)
    with pytest.raises(CheckpointError) as error:
        safetensors.read_header(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert attack.mentions in message
    assert "\n" not in message
    assert message.endswith(("; download the file again", "; convert it first"))
    assert len(message) < len(str(path)) + 300


@pytest.mark.parametrize("name", ATTACKS)
def test_the_library_agrees_except_where_a_difference_is_stated(name: str) -> None:
    assert library_accepts(ATTACKS[name].content) != ATTACKS[name].refused_by_library


@pytest.mark.parametrize("name", ["deep", "long"])
def test_an_attack_quoted_in_a_message_does_not_flood_it(name: str, tmp_path: Path) -> None:
    shape = [[1]] * 10_000 if name == "deep" else [1] * 10_000
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of({"w" * 10_000: entry(shape, 0, 5)}, b"00000"))
    with pytest.raises(CheckpointError) as error:
        safetensors.read_header(path)
    assert len(str(error.value)) < len(str(path)) + 500


def test_the_places_of_tensors_are_read_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry([2, 1], 4, 8, "BF16"),
        "a": entry([], 0, 4),
        "e": entry([0, 7], 8, 8),
    }
    path.write_bytes(file_of(header, b"x" * 8, padding=b" " * 5))
    read = safetensors.read_header(path)
    start = read.data_start
    assert list(read.tensors) == ["a", "b", "e"]
    assert read.tensors["b"].extents == ((start + 4, start + 8),)
    assert read.tensors["b"].dtype is dtypes.BFLOAT16
    assert [tensor.shape for tensor in read.tensors.values()] == [(), (2, 1), (0, 7)]
    assert read.metadata == {"format": "pt"}
    assert read.file_size == start + 8 == path.stat().st_size


def test_a_file_without_tensors_is_legal(tmp_path: Path) -> None:
    content = file_of(b"{}")
    assert accepts(tmp_path / "x.safetensors", content)
    assert library_accepts(content)


def test_a_header_that_claims_100_mb_is_refused_before_memory_is_allocated(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "x.safetensors"
    path.write_bytes((100_000_000).to_bytes(8, "little") + b"{}")
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        safetensors.read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


# Single values that replace a part of a valid header. Not among them: what only the library accepts (see ATTACKS).
ODD_VALUES: list[Any] = [
    None,
    True,
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    -1,
    1.5,
    2**32,
    2**63,
    2**64,
    "",
    "F32",
    "BF16",
    "I8",
    [],
    {},
    [0],
    [0, 4],
]


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """A valid file with up to two changes: a value, an offset or a size off by a few, the length, the data."""
    specs = draw(tensor_specs())
    layout = safetensors.plan_layout(specs, draw(st.sampled_from([None, {"format": "pt"}, {"": "x"}])))
    text = layout.literals[0][1][8:]
    document = json.loads(text)
    data = bytearray(layout.file_size - len(layout.literals[0][1]))
    padding = b" " * draw(st.integers(0, 9))
    length_error = 0
    for _ in range(draw(st.integers(0, 2))):
        change = draw(st.sampled_from(["value", "nudge", "drop", "data", "length", "swap"]))
        if change == "data":
            data = data[: max(0, len(data) + draw(st.integers(-3, 3)))] or bytearray(draw(st.integers(0, 3)))
        elif change == "length":
            length_error = draw(st.integers(-9, 9))
        elif document:
            change_entry(draw, document, change)
    text = json.dumps(document).encode() + padding
    return max(0, len(text) + length_error).to_bytes(8, "little") + text + bytes(data)


def change_entry(draw: st.DrawFn, document: dict[str, Any], change: str) -> None:
    name = draw(st.sampled_from(sorted(document)))
    value = document[name]
    if change == "drop":
        del document[name]
    elif change == "swap" or not isinstance(value, dict) or name == "__metadata__" or not value:
        odd = draw(st.sampled_from(ODD_VALUES))
        assume(not (name == "__metadata__" and odd is None))
        document[name] = odd if draw(st.booleans()) else {"dtype": odd}
    else:
        field = draw(st.sampled_from(sorted(value)))
        place = value[field]
        if change == "nudge" and isinstance(place, list) and place and all(type(item) is int for item in place):
            place[draw(st.integers(0, len(place) - 1))] += draw(st.integers(-5, 5))
        else:
            value[field] = copy.copy(draw(st.sampled_from(ODD_VALUES)))


@settings(max_examples=400)
@given(content=mutated_files())
def test_a_changed_file_is_accepted_exactly_when_the_library_accepts_it(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    assert accepts(path, content) == library_accepts(content), content


@settings(max_examples=400)
@given(
    specs=tensor_specs(),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_file_with_any_bytes_changed_is_never_accepted_alone(
    specs: TensorSpecs, flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    layout = safetensors.plan_layout(specs, {"format": "pt"})
    content = bytearray(layout.literals[0][1].ljust(layout.file_size, b"\0"))
    for position, byte in flips:
        content[position % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    if accepts(path, bytes(content)):
        assert library_accepts(bytes(content))


@settings(max_examples=100)
@given(specs=tensor_specs(), seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_what_the_library_and_the_reader_read(
    specs: TensorSpecs, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.safetensors"
    path.unlink(missing_ok=True)
    contents = content_of(specs, seed)
    layout = safetensors.plan_layout(specs, {"format": "pt"})
    with ShardWriter(path, layout) as writer:
        for name, content in contents.items():
            writer.write(name, 0, content)
    library = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    assert library.keys() == contents.keys()
    with TensorFile(path) as file:
        assert file.header.tensors == layout.tensors
        for name, dtype, shape in specs:
            assert library[name]["dtype"] == dtype.safetensors
            assert tuple(library[name]["shape"]) == shape
            assert bytes(library[name]["data"]) == contents[name].tobytes()
            assert file.read(name).tobytes() == contents[name].tobytes()


@settings(max_examples=100)
@given(specs=tensor_specs())
def test_a_layout_is_aligned_and_has_its_header_first(specs: TensorSpecs) -> None:
    layout = safetensors.plan_layout(specs)
    ((offset, header),) = layout.literals
    assert offset == 0
    assert len(header) % 8 == 0
    assert all(tensor.extents[0][0] % tensor.dtype.itemsize == 0 for tensor in layout.tensors.values())
    assert sum(tensor.nbytes for tensor in layout.tensors.values()) == layout.file_size - len(header)


@pytest.mark.reference
def test_torch_reads_bfloat16_and_metadata_as_written(tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    path = tmp_path / "x.safetensors"
    bits = np.arange(0x3F80, 0x3F80 + 6, dtype=np.uint16).reshape(2, 3)
    with ShardWriter(path, safetensors.plan_layout([("w", dtypes.BFLOAT16, (2, 3))], {"format": "pt"})) as writer:
        writer.write("w", 0, bits)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        tensor = file.get_tensor("w")
    assert tensor.dtype == torch.bfloat16
    np.testing.assert_array_equal(tensor.view(torch.int16).numpy().view(np.uint16), bits)


def test_mindspore_loads_a_written_file(tmp_path: Path) -> None:
    import mindspore

    path = tmp_path / "x.safetensors"
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    specs = [("b", dtypes.FLOAT32, (2, 3)), ("a", dtypes.BFLOAT16, (2,))]
    with ShardWriter(path, safetensors.plan_layout(specs, {"format": "pt"})) as writer:
        writer.write("b", 0, values)
        writer.write("a", 0, np.array([0x3F80, 0xC000], np.uint16))
    loaded = mindspore.load_checkpoint(str(path), format="safetensors")
    np.testing.assert_array_equal(loaded["b"].asnumpy(), values)
    assert loaded["a"].dtype == mindspore.bfloat16
    np.testing.assert_array_equal(loaded["a"].asnumpy().astype(np.float32), [1, -2])


@pytest.mark.parametrize("names", [["w", "w"], ["__metadata__"]])
def test_a_name_that_is_taken_cannot_be_laid_out(names: list[str]) -> None:
    with pytest.raises(CheckpointError, match="the name is taken"):
        safetensors.plan_layout([(name, dtypes.FLOAT32, (1,)) for name in names])


def test_a_good_file_is_accepted_by_both(tmp_path: Path) -> None:
    assert accepts(tmp_path / "x.safetensors", GOOD)
    assert library_accepts(GOOD)
