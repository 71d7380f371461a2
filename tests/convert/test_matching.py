from __future__ import annotations

from msport.architectures import Dropped, Form, Matrix, Role, Weight
from msport.architectures.tensors import experts, plain, stacked_experts, stacked_gate_up
from msport.checkpoint import DType, TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT8_E4M3FN, INT64, UINT8
from msport.convert.matching import match
from msport.encodings import MXFP4, Plain

EXPERTS = experts("experts.up", experts=2, inputs=64, outputs=8)
BLOCKS, SCALES = ((part.name, part.shape) for part in MXFP4.parts("experts.up", (2, 8, 64)))


def tensors(*described: tuple[str, tuple[int, ...], DType]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, dtype, shape, ()) for name, shape, dtype in described}


def test_the_encoding_whose_tensors_are_there_is_taken() -> None:
    packed = tensors((*BLOCKS, UINT8), (*SCALES, UINT8))
    whole = tensors(("experts.up", (2, 64, 8), BFLOAT16))
    assert [found.encodings for found in match([EXPERTS], [], packed)[0]] == [(MXFP4,)]
    assert [found.encodings for found in match([EXPERTS], [], whole)[0]] == [(Plain(BFLOAT16),)]


def test_both_forms_of_one_parameter_leave_the_second_unexpected() -> None:
    both = tensors((*BLOCKS, UINT8), (*SCALES, UINT8), ("experts.up", (2, 64, 8), BFLOAT16))
    assert match([EXPERTS], [], both)[2].unexpected == ["experts.up"]


def test_an_incomplete_encoding_is_reported_by_its_missing_tensors() -> None:
    problems = match([EXPERTS], [], tensors((*BLOCKS, UINT8)))[2]
    assert problems.missing == ["experts.up_scales"]
    assert not problems.unexpected


def test_everything_wrong_is_reported_together() -> None:
    weights = [plain("a", 2, 3), plain("b", 4), plain("c", 5), EXPERTS]
    _, _, problems = match(
        weights,
        [],
        tensors(
            ("b", (4, 1), BFLOAT16),
            ("c", (5,), INT64),
            ("d", (1,), BFLOAT16),
            (BLOCKS[0], BLOCKS[1], BFLOAT16),
            (*SCALES, UINT8),
        ),
    )
    assert problems
    assert str(problems) == (
        "missing: a; not in the architecture's table: d; wrong shape: b is [4, 1], config.json says [4];"
        " wrong dtype: c is int64, msport reads float32, float16, bfloat16,"
        " experts.up_blocks is bfloat16, msport reads uint8"
    )


def test_float8_is_a_wrong_dtype() -> None:
    assert match([plain("a", 1)], [], tensors(("a", (1,), FLOAT8_E4M3FN)))[2].wrong_dtype


def test_a_long_list_is_cut_and_counted() -> None:
    problems = match([plain(f"layer.{number}", 1) for number in range(100)], [], {})[2]
    assert str(problems).endswith("layer.7 and 92 more")
    assert len(problems.missing) == 100


def test_drops_are_only_those_the_checkpoint_holds() -> None:
    rows = [Dropped("inv_freq", "recomputed"), Dropped("lm_head.weight", "tied")]
    _, dropped, problems = match([plain("a", 1)], rows, tensors(("a", (1,), BFLOAT16), ("lm_head.weight", (1,), INT64)))
    assert dropped == [rows[1]]
    assert not problems


def test_experts_that_ship_one_by_one_are_listed_in_order() -> None:
    down = stacked_experts("down", 3, inputs=4, outputs=6, source="experts.{e}.down.weight")
    assert down.shape == (3, 4, 6)
    assert down.role == Role.EXPERTS
    assert down.forms[0] == Form(tuple(Matrix(f"experts.{e}.down.weight", (6, 4)) for e in range(3)), 1)
    gate_up = stacked_gate_up("gate_up", 2, inputs=4, outputs=6, gate="{e}.gate", up="{e}.up")
    assert gate_up.shape == (2, 4, 12)
    assert [matrix.name for matrix in gate_up.forms[0].matrices] == ["0.gate", "0.up", "1.gate", "1.up"]
    assert isinstance(gate_up, Weight)
