"""The ``.ckpt`` format: what is accepted, what is refused, and agreement with MindSpore's own writer and loader."""

from __future__ import annotations

import filecmp
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.checkpoint import Header, Layout, ShardWriter, TensorFile, ckpt, dtypes
from msport.checkpoint.protobuf import encode_bytes
from msport.errors import CheckpointError

from .attacks.ckpt_files import ATTACKS, CRC, GOOD, simple, tensor, value
from .families import TensorSpecs, content_of, tensor_specs

CKPT_DTYPES = tuple(dtype for dtype in dtypes.DTYPES if dtype.ckpt is not None)


def loadable_specs() -> st.SearchStrategy[TensorSpecs]:
    """What MindSpore loads back: its own dtypes, and not shape [0]."""
    specs = tensor_specs(CKPT_DTYPES)
    return specs.map(lambda found: [spec for spec in found if spec[2] != (0,)]).filter(bool)


def write(path: Path, layout: Layout, contents: dict[str, Any]) -> None:
    path.unlink(missing_ok=True)
    with ShardWriter(path, layout) as writer:
        for name, content in contents.items():
            writer.write(name, 0, content)


@pytest.fixture(scope="module")
def mindspore() -> Any:
    import mindspore

    return mindspore


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_in_one_line_that_names_file_fault_and_remedy(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(ATTACKS[name].content)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as error:
        ckpt.read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert ATTACKS[name].mentions in message
    assert "\n" not in message
    assert message.endswith(
        ("; download the file again or save it again", "; convert it first", "; save it as a Tensor")
    )
    assert len(message) < len(str(path)) + 300
    assert peak < 500_000


def test_a_plain_file_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(GOOD)
    header = ckpt.read_header(path)
    assert header.tensors["w"].shape == (1,)
    assert header.tensors["w"].extents == ((len(GOOD) - 4, len(GOOD)),)


def test_packed_dims_are_accepted_as_protobuf_demands(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(value(b"w", tensor(encode_bytes(1, b"\x02\x03"), b"Int8", b"012345")))
    assert ckpt.read_header(path).tensors["w"].shape == (2, 3)


@pytest.mark.parametrize("dims", [(), (0,)])
def test_a_scalar_has_no_dims_or_a_zero(dims: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(simple(dims=dims))
    assert ckpt.read_header(path).tensors["w"].shape == ()


def test_the_trailer_is_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(GOOD + CRC)
    assert list(ckpt.read_header(path).tensors) == ["w"]


@settings(max_examples=300)
@given(
    specs=loadable_specs(),
    flips=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=3),
    length=st.none() | st.integers(0, 300),
)
def test_a_damaged_file_is_refused_or_read_as_protobuf_reads_it(
    mindspore: Any,
    specs: TensorSpecs,
    flips: list[tuple[int, int]],
    length: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    layout = ckpt.plan_layout(specs, slice_bytes=40)
    content = bytearray(layout.file_size)
    for offset, literal in layout.literals:
        content[offset : offset + len(literal)] = literal
    for position, byte in flips:
        content[position % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    path.write_bytes(content[:length])
    try:
        header = ckpt.read_header(path)
    except CheckpointError:
        return
    assert_protobuf_agrees(path, header)


def assert_protobuf_agrees(path: Path, header: Header) -> None:
    """The file parses as MindSpore parses it, into the same tensors and strings of the same bytes."""
    from mindspore.train.checkpoint_pb2 import Checkpoint

    content = path.read_bytes()
    theirs = Checkpoint()
    theirs.ParseFromString(content[:-17] if content[-17:-10] == b"crc_num" else content)
    joined: dict[str, bytes] = {}
    for entry in theirs.value:
        joined[entry.tag] = joined.get(entry.tag, b"") + entry.tensor.tensor_content
    assert joined.keys() == header.tensors.keys() | header.metadata.keys()
    for name, info in header.tensors.items():
        assert b"".join(content[begin:end] for begin, end in info.extents) == joined[name]
        assert len(joined[name]) == info.nbytes
    for entry in theirs.value:
        if entry.tag in header.tensors:
            info = header.tensors[entry.tag]
            assert (entry.tensor.tensor_type, tuple(entry.tensor.dims)) in {
                (info.dtype.ckpt, info.shape),
                (info.dtype.ckpt, (0,)),
            }


@settings(max_examples=100)
@given(specs=loadable_specs(), seed=st.integers(0, 2**32 - 1), slice_bytes=st.integers(1, 200))
def test_the_written_bytes_are_read_back_for_any_slices(
    specs: TensorSpecs, seed: int, slice_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.ckpt"
    contents = content_of(specs, seed)
    layout = ckpt.plan_layout(specs, {"note\0": "héllo 🤗"}, slice_bytes=slice_bytes)
    write(path, layout, contents)
    with TensorFile(path) as file:
        assert file.header.tensors == layout.tensors
        assert file.header.metadata == {"note\0": "héllo 🤗"}
        for name, content in contents.items():
            assert file.read(name).tobytes() == content.tobytes()


@settings(max_examples=60)
@given(
    specs=loadable_specs(),
    seed=st.integers(0, 2**32 - 1),
    slice_bytes=st.sampled_from([8, 24, 2**29]),
)
def test_mindspore_loads_what_is_written(
    mindspore: Any,
    specs: TensorSpecs,
    seed: int,
    slice_bytes: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / "for_mindspore.ckpt"
    contents = content_of(specs, seed)
    write(path, ckpt.plan_layout(specs, {"a note": "héllo"}, slice_bytes=slice_bytes), contents)
    loaded = mindspore.load_checkpoint(str(path))
    assert loaded.pop("a note") == "héllo"
    assert loaded.keys() == contents.keys()
    for name, dtype, shape in specs:
        assert loaded[name].shape == shape
        assert str(loaded[name].dtype) == dtype.ckpt
        assert loaded[name].asnumpy().tobytes() == contents[name].tobytes()


def parameters_of(specs: TensorSpecs, contents: dict[str, Any]) -> list[dict[str, Any]]:
    import mindspore
    from mindspore.common.np_dtype import bfloat16

    arrays = {
        name: contents[name].view(bfloat16) if dtype is dtypes.BFLOAT16 else contents[name] for name, dtype, _ in specs
    }
    return [{"name": name, "data": mindspore.Parameter(mindspore.Tensor(array))} for name, array in arrays.items()]


EVERY_DTYPE: TensorSpecs = [
    (f"{dtype.name}{list(shape)}", dtype, shape) for dtype in CKPT_DTYPES for shape in ((), (1,), (5,), (3, 2, 4))
]


def test_a_file_is_byte_for_byte_what_mindspore_saves(mindspore: Any, tmp_path: Path) -> None:
    contents = content_of(EVERY_DTYPE, seed=0)
    mindspore.save_checkpoint(parameters_of(EVERY_DTYPE, contents), str(tmp_path / "theirs.ckpt"))
    write(tmp_path / "ours.ckpt", ckpt.plan_layout(EVERY_DTYPE), contents)
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()


@pytest.mark.parametrize("slice_kilobytes", [1, 512 * 1024])
def test_what_mindspore_saves_is_read(
    mindspore: Any, slice_kilobytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mindspore.train import serialization

    monkeypatch.setattr(serialization, "SLICE_SIZE", slice_kilobytes)
    specs = [*EVERY_DTYPE, ("large", dtypes.FLOAT32, (100, 33)), ("large bf16", dtypes.BFLOAT16, (7, 1000))]
    contents = content_of(specs, seed=1)
    path = tmp_path / "x.ckpt"
    extra = {"lr": 0.5, "step": 3, "note": "héllo", "empty": ""}
    parameters = parameters_of(specs, contents)
    mindspore.save_checkpoint(parameters, str(path), append_dict=extra, crc_check=True)
    with TensorFile(path) as file:
        assert file.header.metadata == {"note": "héllo", "empty": ""}
        assert (len(file.header.tensors["large"].extents) > 1) == (slice_kilobytes == 1)
        assert file.read("lr") == 0.5
        assert file.read("step") == 3
        for name, dtype, shape in specs:
            assert (file.header.tensors[name].dtype, file.header.tensors[name].shape) == (dtype, shape)
            assert file.read(name).tobytes() == contents[name].tobytes()


def test_slices_of_rows_as_mindspore_cuts_numpy_arrays_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mindspore.train import serialization

    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)
    path = tmp_path / "x.ckpt"
    values = np.arange(1001 * 3, dtype=np.float32).reshape(1001, 3)
    serialization._exec_save(str(path), {"w": [[1001, 3], "Float32", values]})
    with TensorFile(path) as file:
        assert len(file.header.tensors["w"].extents) == 12
        np.testing.assert_array_equal(file.read("w", 100, 900), values[100:900])


@pytest.mark.slow
def test_a_tensor_above_512_mib_is_sliced_as_mindspore_slices_it(mindspore: Any, tmp_path: Path) -> None:
    rows = 5 * 2**17 + 3
    values = np.arange(rows * 256, dtype=np.float32).reshape(rows, 256)
    write(tmp_path / "ours.ckpt", ckpt.plan_layout([("w", dtypes.FLOAT32, (rows, 256))]), {"w": values})
    with TensorFile(tmp_path / "ours.ckpt") as file:
        assert len(file.header.tensors["w"].extents) == 2
    loaded = mindspore.load_checkpoint(str(tmp_path / "ours.ckpt"))["w"]
    np.testing.assert_array_equal(loaded.asnumpy(), values)
    mindspore.save_checkpoint([{"name": "w", "data": loaded}], str(tmp_path / "theirs.ckpt"))
    assert filecmp.cmp(tmp_path / "ours.ckpt", tmp_path / "theirs.ckpt", shallow=False)


@pytest.mark.parametrize("dtype", [dtype for dtype in dtypes.DTYPES if dtype.ckpt is None])
def test_a_dtype_that_mindspore_cannot_load_is_not_laid_out(dtype: dtypes.DType) -> None:
    with pytest.raises(CheckpointError, match=f"loads no {dtype.name} from .ckpt; use format safetensors"):
        ckpt.plan_layout([("w", dtype, (1,))])


def test_shape_zero_which_mindspore_takes_for_a_scalar_is_not_laid_out() -> None:
    with pytest.raises(CheckpointError, match=r"shape \[0\]"):
        ckpt.plan_layout([("w", dtypes.FLOAT32, (0,))])


def test_a_name_that_is_taken_cannot_be_laid_out() -> None:
    with pytest.raises(CheckpointError, match="the name is taken"):
        ckpt.plan_layout([("w", dtypes.FLOAT32, (1,)), ("w", dtypes.FLOAT32, (1,))])
    with pytest.raises(CheckpointError, match="the name is taken"):
        ckpt.plan_layout([("w", dtypes.FLOAT32, (1,))], {"w": "x"})
