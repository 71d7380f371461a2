from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from convert.hub_folder import Tensors, as_float32, change_config, change_tensors, read_tensors, write_tensors
from msport.architectures import Role, get_architecture
from msport.checkpoint import DType, TensorInfo, open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, UINT8, cast
from msport.convert import Plan, make_plan
from msport.convert.plan import Rounded
from msport.convert.transforms import Copy
from msport.encodings import MXFP4, Plain
from msport.errors import CheckpointError, ConfigError, UnsupportedError, UsageError
from msport.sample import write_sample


def plan_of(folder: Path, **options: str | int) -> Plan:
    with open_checkpoint(folder) as checkpoint:
        return make_plan(checkpoint, **options)  # type: ignore[arg-type]


class HeadersOnly:
    """A checkpoint of which only a config and a table of tensors exist."""

    def __init__(self, folder: Path, config: dict[str, object]) -> None:
        self.folder = folder
        where = folder / "config.json"
        where.write_text(json.dumps(config))
        architecture = get_architecture(config, where)
        packed = "mxfp4" in str(config.get("quantization_config"))
        self.tensors = {}
        for weight in architecture.weights(architecture.parse(config, where)):
            encoding = MXFP4 if packed and weight.role == Role.EXPERTS else Plain(BFLOAT16)
            for matrix in weight.forms[0].matrices:
                for part in encoding.parts(matrix.name, matrix.shape):
                    self.tensors[part.name] = TensorInfo(part.name, part.dtype, part.shape, ((0, 0),))
        self.files = dict.fromkeys(self.tensors, folder / "model.safetensors")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "mxfp4"])
@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_every_source_is_used_once_and_every_byte_has_one_place(
    packed_sample: Path, dtype: str, file_format: str
) -> None:
    plan = plan_of(packed_sample, dtype=dtype, format=file_format, max_shard_size="300kB")
    used = Counter(source.name for tensor in plan.tensors for source in tensor.sources)
    with open_checkpoint(packed_sample) as checkpoint:
        assert used == Counter(checkpoint.tensors.keys())
    for shard in plan.shards:
        pieces = [(begin, begin + len(literal)) for begin, literal in shard.layout.literals]
        for tensor in plan.tensors:
            if tensor.file == shard.file:
                pieces += tensor.extents
                assert shard.layout.tensors[tensor.name].extents == tensor.extents
        pieces.sort()
        assert pieces[0][0] == 0
        assert pieces[-1][1] == shard.layout.file_size
        assert all(first[1] == second[0] for first, second in pairwise(pieces))


def test_shards_hold_what_was_asked_or_one_larger_tensor(packed_sample: Path) -> None:
    plan = plan_of(packed_sample, max_shard_size="300kB")
    assert [shard.file for shard in plan.shards][:2] == [
        f"model-00001-of-{len(plan.shards):05}.safetensors",
        f"model-00002-of-{len(plan.shards):05}.safetensors",
    ]
    for shard in plan.shards:
        sizes = [tensor.nbytes for tensor in plan.tensors if tensor.file == shard.file]
        assert sum(sizes) <= 300_000 or len(sizes) == 1
    assert any(tensor.nbytes > 300_000 for tensor in plan.tensors)


def test_what_fits_in_one_shard_is_named_as_the_hub_names_it(packed_sample: Path) -> None:
    assert [shard.file for shard in plan_of(packed_sample).shards] == ["model.safetensors"]
    assert [shard.file for shard in plan_of(packed_sample, format="ckpt").shards] == ["model.ckpt"]


def test_mxfp4_keeps_blocks_and_scales_under_their_own_names_and_the_rest_becomes_bfloat16(packed_sample: Path) -> None:
    plan = plan_of(packed_sample, dtype="mxfp4")
    names = {tensor.name: tensor for tensor in plan.tensors}
    blocks = names["model.layers.1.mlp.experts.down_proj_blocks"]
    assert (blocks.dtype, blocks.shape, blocks.transform) == (UINT8, (8, 128, 3, 16), Copy())
    assert "model.layers.1.mlp.experts.down_proj" not in names
    assert {tensor.dtype for tensor in plan.tensors if not tensor.name.endswith(("_blocks", "_scales"))} == {BFLOAT16}


def test_mxfp4_of_a_model_that_has_none_is_refused(wide_sample: Path) -> None:
    with pytest.raises(UsageError, match="no MXFP4 tensors to keep; choose auto, bfloat16, float16 or float32"):
        plan_of(wide_sample, dtype="mxfp4")


@pytest.mark.parametrize(
    ("sample", "dtype", "rounded"),
    [
        ("packed_sample", "bfloat16", False),
        ("packed_sample", "float32", False),
        ("packed_sample", "float16", True),
        ("wide_sample", "bfloat16", True),
        ("wide_sample", "float32", False),
    ],
)
def test_the_plan_says_where_values_are_rounded(
    sample: str, dtype: str, rounded: bool, request: pytest.FixtureRequest
) -> None:
    plan = plan_of(request.getfixturevalue(sample), dtype=dtype)
    copies = [tensor for tensor in plan.tensors if tensor.transform == Copy()]
    assert {tensor.rounded for tensor in copies} == {rounded}


def test_all_that_is_wrong_is_said_at_once_before_anything_is_written(
    packed_sample: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(packed_sample)

    def break_it(tensors: dict) -> None:  # type: ignore[type-arg]
        del tensors["model.norm.weight"]
        tensors["model.norm.gamma"] = tensors["lm_head.weight"]
        tensors["lm_head.weight"] = (BFLOAT16, tensors["lm_head.weight"][1][:-1])
        sinks = tensors["model.layers.0.self_attn.sinks"][1]
        tensors["model.layers.0.self_attn.sinks"] = (UINT8, sinks.astype("u1"))

    change_tensors(folder, break_it)
    with pytest.raises(CheckpointError) as error:
        plan_of(folder)
    for part in (
        str(folder),
        "missing: model.norm.weight",
        "not in the architecture's table: model.norm.gamma",
        "lm_head.weight is [1023, 128], config.json says [1024, 128]",
        "model.layers.0.self_attn.sinks is uint8",
    ):
        assert part in str(error.value)


def test_a_config_that_contradicts_the_tensors_is_refused(packed_sample: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(packed_sample)
    change_config(folder, num_local_experts=4)
    with pytest.raises(CheckpointError, match=r"router.weight is \[8, 128\], config.json says \[4, 128\]"):
        plan_of(folder)


def test_a_field_that_is_missing_is_named(packed_sample: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(packed_sample)
    change_config(folder, num_local_experts=None)
    with pytest.raises(ConfigError, match="num_local_experts"):
        plan_of(folder)


def test_an_unsupported_architecture_is_refused_with_those_there_are(
    packed_sample: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(packed_sample)
    change_config(folder, architectures=["T5ForConditionalGeneration"])
    with pytest.raises(UnsupportedError, match="GptOssForCausalLM"):
        plan_of(folder)


@pytest.mark.parametrize("quantization", [{"quant_method": "bitsandbytes"}, {}, "awq", ["mxfp4"]])
def test_an_unknown_quantization_is_refused_by_name(
    packed_sample: Path, copy_of: Callable[[Path], Path], quantization: object
) -> None:
    folder = copy_of(packed_sample)
    change_config(folder, quantization_config=quantization)
    with pytest.raises(UnsupportedError, match=r"quantized with .*; msport reads mxfp4, fp8"):
        plan_of(folder)


@pytest.mark.parametrize("options", [{"dtype": "int3"}, {"format": "pickle"}, {"max_shard_size": "huge"}])
def test_unknown_options_are_refused(packed_sample: Path, options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        plan_of(packed_sample, **options)


def test_known_leftovers_are_dropped_by_name(packed_sample: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(packed_sample)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(folder, lambda tensors: tensors.update({name: (FLOAT32, np.ones(16, "f4"))}))
    plan = plan_of(folder)
    assert [(dropped.name, dropped.reason) for dropped in plan.dropped] == [(name, "recomputed from config.json")]
    assert name not in {tensor.name for tensor in plan.tensors}


def test_sources_in_float16_are_understood(packed_sample: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(packed_sample)
    tensors = read_tensors(folder)
    tensors["model.norm.weight"] = (FLOAT16, np.ones(128, "f2"))
    write_tensors(folder, tensors)
    assert {tensor.dtype for tensor in plan_of(folder, dtype="bfloat16").tensors} == {BFLOAT16}


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16, BFLOAT16])
def test_auto_keeps_the_dtype_in_the_headers_and_ignores_config_json(tmp_path: Path, dtype: DType) -> None:
    folder = write_sample("qwen3", tmp_path / "model", dtype=dtype.name)
    change_config(folder, torch_dtype="float64", dtype="int8")
    plan = plan_of(folder)
    assert (plan.dtype, {tensor.dtype for tensor in plan.tensors}) == (dtype.name, {dtype})
    assert plan.rounded == ()


def test_auto_decodes_packed_experts_to_bfloat16(packed_sample: Path) -> None:
    assert plan_of(packed_sample, dtype="auto") == plan_of(packed_sample, dtype="bfloat16")


def test_auto_keeps_each_tensor_of_a_checkpoint_in_several_dtypes(tmp_path: Path) -> None:
    folder = write_sample("qwen3", tmp_path / "model", dtype="bfloat16")

    def widen(tensors: Tensors) -> None:
        for name in [name for name in tensors if "norm" in name]:
            tensors[name] = (FLOAT32, as_float32(*tensors[name]))

    change_tensors(folder, widen)
    plan = plan_of(folder)
    assert plan.dtype == "bfloat16"
    assert {tensor.dtype for tensor in plan.tensors if "norm" in tensor.name} == {FLOAT32}
    assert {tensor.dtype for tensor in plan.tensors if "norm" not in tensor.name} == {BFLOAT16}
    assert [shard.source for shard in plan.shards] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((BFLOAT16, BFLOAT16), BFLOAT16),
        ((FLOAT16, FLOAT16), FLOAT16),
        ((BFLOAT16, FLOAT32), FLOAT32),
        ((BFLOAT16, FLOAT16), FLOAT32),
    ],
)
def test_auto_gives_a_stack_of_experts_what_holds_all_of_them(
    tmp_path: Path, dtypes: tuple[DType, DType], expected: DType
) -> None:
    folder = write_sample("mixtral", tmp_path / "model", dtype="float32", overrides={"num_hidden_layers": 1})

    def narrow(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.endswith("w2.weight")]:
            dtype = dtypes[".experts.3." in name]
            tensors[name] = (dtype, cast(tensors[name][1], FLOAT32, dtype))

    change_tensors(folder, narrow)
    plan = plan_of(folder)
    assert {tensor.dtype for tensor in plan.tensors if tensor.name.endswith("down_proj")} == {expected}
    assert plan.rounded == ()
    narrowed = plan_of(folder, dtype="bfloat16")
    (stack,) = [tensor for tensor in narrowed.tensors if tensor.name.endswith("down_proj")]
    assert stack.rounded == (dtypes != (BFLOAT16, BFLOAT16))
    assert Rounded("float32", "bfloat16", len(narrowed.tensors) - 1 + (FLOAT32 in dtypes)) in narrowed.rounded


def catalog_of_the_120b(folder: Path, packed_sample: Path, layers: int) -> HeadersOnly:
    config = json.loads((packed_sample / "config.json").read_text(encoding="utf-8"))
    sizes = {"num_hidden_layers": layers, "num_local_experts": 128, "hidden_size": 2880, "intermediate_size": 2880}
    heads = {"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088}
    types = {"layer_types": ["sliding_attention", "full_attention"] * (layers // 2)}
    return HeadersOnly(folder, {**config, **sizes, **heads, **types})


def test_the_120b_is_planned_from_headers_alone(tmp_path: Path, packed_sample: Path) -> None:
    plan = make_plan(catalog_of_the_120b(tmp_path, packed_sample, 36))
    print(f"{len(plan.tensors)} tensors, {plan.nbytes / 1e9:.1f} GB, {len(plan.shards)} shards")
    attention = 2880 * (2 * 4096 + 2 * 512) + 4096 + 2 * 512 + 2880 + 64
    experts = 128 * (2880 * 5760 + 5760 + 2880 * 2880 + 2880) + 128 * 2880 + 128
    parameters = 36 * (attention + experts + 2 * 2880) + 2 * 201088 * 2880 + 2880
    assert plan.nbytes == 2 * parameters
    assert 0 < plan.file_nbytes - plan.nbytes < 10**6


def test_planning_four_times_as_many_layers_takes_four_times_as_many_steps(tmp_path: Path, packed_sample: Path) -> None:
    """Steps are calls of functions, which a busy machine does not change; its seconds would."""

    def steps(layers: int) -> int:
        catalog, count = catalog_of_the_120b(tmp_path, packed_sample, layers), 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            make_plan(catalog)
        finally:
            sys.setprofile(before)
        return count

    steps(2)  # fills what is computed once
    few, many = steps(8), steps(32)
    print(f"{few} steps for 8 layers, {many} for 32")
    assert many <= 4 * few
