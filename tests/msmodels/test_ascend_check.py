"""Every family's prefill and decode graph passes MindSpore's front end with the fused operators it should have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from docs.ascend import table
from docs.documents import ROOT

from msmodels.ascend_families import (
    LAYERS,
    PACKED_GPT_OSS,
    QUANTISED,
    SIZES,
    ZERO_POINTS,
    write_config,
    write_quantised,
)
from msport.architectures import ARCHITECTURES
from msport.child import ChildError, call_in_child
from msport.doctor.ascend_graphs import diagnose_ascend
from msport.errors import ConfigError, UnsupportedError, UsageError
from msport.msmodels import check_ascend

FAMILIES = [family.model_type for family in ARCHITECTURES.values()]
BY_TYPE = {family.model_type: family for family in ARCHITECTURES.values()}


def _checked(dtype: str, *marks: pytest.MarkDecorator) -> Any:
    return pytest.param(dtype, marks=[*marks, pytest.mark.ahead("msmodels.ascend_families:check_all", dtype)])


@pytest.fixture(params=[_checked("bfloat16"), _checked("float16", pytest.mark.slow)])
def reports(ahead: Callable[[], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return ahead()


def fused(graph: dict[str, Any]) -> dict[str, bool]:
    return {part["name"]: part["found"] == part["wanted"] for part in graph["parts"]}


def test_every_graph_of_every_family_is_inferred_without_a_problem(reports: dict[str, dict[str, Any]]) -> None:
    assert set(FAMILIES) <= set(reports)
    for name, report in reports.items():
        assert [graph["name"] for graph in report["graphs"]] == ["prefill", "decode"]
        for graph in report["graphs"]:
            assert not graph["problems"], f"{name} {graph['name']}: {graph['problems']}"


def test_attention_norms_and_expert_products_are_fused(reports: dict[str, dict[str, Any]]) -> None:
    for name, report in reports.items():
        for graph in report["graphs"]:
            parts = fused(graph)
            assert parts["RMSNorm"], name
            assert parts["cache update"], name
            assert parts["RoPE"], name
            # Soft-caps have no operator: Gemma2's attention is composed.
            assert parts["attention"] == (name != "gemma2"), name
            if name not in (PACKED_GPT_OSS, "qwen3_moe, int8") and "expert products" in parts:
                assert parts["expert products"], name
                assert parts["expert sorting"], name


def test_prefill_and_decode_have_their_own_attention(reports: dict[str, dict[str, Any]]) -> None:
    prefill, decode = reports["gpt_oss"]["graphs"]
    assert prefill["operators"]["FlashAttentionScore"] == LAYERS
    assert decode["operators"]["FusedInferAttentionScore"] == LAYERS
    assert "FlashAttentionScore" not in decode["operators"]


def test_packed_experts_take_a_quarter_of_the_memory_and_are_decoded_in_the_graph(
    reports: dict[str, dict[str, Any]],
) -> None:
    if PACKED_GPT_OSS not in reports:
        pytest.skip("packed experts are examined in bfloat16")
    packed = reports[PACKED_GPT_OSS]
    assert packed["weight_bytes"] < 0.6 * reports["gpt_oss"]["weight_bytes"]
    for graph in packed["graphs"]:
        assert graph["operators"]["Floor"] > 0
        assert graph["operators"]["BatchMatMul"] > 0


def test_quantised_matrices_stay_packed_and_are_decoded_inside_the_products(
    reports: dict[str, dict[str, Any]],
) -> None:
    """int8 experts in groups are not documented for GroupedMatmulV4, so the graph decodes those that it needs."""
    if QUANTISED[0] not in reports:
        pytest.skip("quantised weights have bfloat16 scales, and are examined in bfloat16")
    for name in QUANTISED:
        family, bits = name.split(", int")
        assert_packed(reports[name], experts_fused=bits == "4")
        # 4.5 or 8.5 bits instead of 16; embedding and head stay.
        assert reports[name]["weight_bytes"] < (0.8 if bits == "8" else 0.65) * reports[family]["weight_bytes"]


def _zero_points(*quantised: str, marks: Sequence[pytest.MarkDecorator] = ()) -> Any:
    names = [f"{name}{ZERO_POINTS}" for name in quantised]
    ahead = pytest.mark.ahead("msmodels.ascend_families:check", "bfloat16", *names)
    return pytest.param(quantised, id=quantised[0], marks=[*marks, ahead])


@pytest.fixture(
    params=[
        _zero_points("llama, int8"),
        _zero_points("llama, int4", "qwen3_moe, int4", "qwen3_moe, int8", marks=[pytest.mark.slow]),
    ]
)
def with_zero_points(ahead: Callable[[], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return ahead()


def test_zero_points_go_into_the_products_of_layers_and_not_of_experts(
    with_zero_points: dict[str, dict[str, Any]],
) -> None:
    for report in with_zero_points.values():
        assert_packed(report, experts_fused=False)


def assert_packed(report: dict[str, Any], *, experts_fused: bool) -> None:
    assert report["packed"]
    assert report["decoded"] == 0
    for graph in report["graphs"]:
        assert not graph["problems"]
        parts = fused(graph)
        assert parts["quantised layers"]
        assert parts.get("expert products", experts_fused) == experts_fused
        # Seven layers of a dense block, or four and the experts; the router and the head are plain.
        assert graph["operators"]["WeightQuantBatchMatmul"] >= 4 * LAYERS


@pytest.mark.slow
def test_scales_of_another_dtype_are_decoded_when_loaded_and_that_is_said(tmp_path: Path) -> None:
    folder = write_quantised(BY_TYPE["llama"], tmp_path, "int4")
    report = check_ascend(folder, "float16", **SIZES)
    assert report.passed
    assert (report.packed, report.decoded) == (False, 7 * LAYERS)
    said = diagnose_ascend(folder, dtype="float16", max_length=64, batch=1, timeout=600).checks[0].finding
    assert f"{7 * LAYERS} packed matrices are decoded when loaded" in said


@pytest.mark.parametrize("document", ["ascend.md", "ascend.zh-CN.md"])
def test_the_documents_show_the_table_of_what_is_fused(reports: dict[str, dict[str, Any]], document: str) -> None:
    if PACKED_GPT_OSS not in reports:
        pytest.skip("the table is that of bfloat16")
    assert table(reports) in (ROOT / "docs" / document).read_text(encoding="utf-8")


def test_a_graph_that_inference_rejects_is_refused_in_a_line(tmp_path: Path) -> None:
    folder = write_config(BY_TYPE["mixtral"], tmp_path / "mixtral")
    with pytest.raises(UnsupportedError, match=r"rejects the Ascend prefill graph in bfloat16: .+ MSPORT_OPS=port"):
        call_in_child("msmodels.ascend_families:build_with_a_wrong_operator", {"folder": str(folder)}, task="a graph")


@pytest.mark.slow
def test_the_20b_of_two_layers_needs_no_memory_for_its_weights(tmp_path: Path) -> None:
    changes = {
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "head_dim": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "num_local_experts": 32,
        "sliding_window": 128,
        "vocab_size": 201088,
    }
    folder = write_config(BY_TYPE["gpt_oss"], tmp_path / "20b", **changes)
    for dtype in ("bfloat16", "mxfp4"):
        found = call_in_child("msmodels.ascend_families:examine", {"folder": str(folder), "dtype": dtype}, task=dtype)
        assert found["passed"]
        assert found["attention"] == [True, True]
        print(
            f"{dtype}: {found['weight_bytes'] / 1e9:.2f} GB of weights, {found['cache_bytes'] / 1e6:.1f} MB of caches"
        )
        assert found["peak_bytes"] < 4e9  # the weights would take 5 GB


def test_what_ascend_does_not_take_is_refused(tmp_path: Path) -> None:
    folder = write_config(BY_TYPE["llama"], tmp_path / "llama")
    with pytest.raises(UsageError, match="is not one of bfloat16, float16, mxfp4"):
        check_ascend(folder, "float32")
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        check_ascend(folder, batch_size=0)
    with pytest.raises(UsageError, match="no experts that could stay packed"):
        check_ascend(folder, "mxfp4", **SIZES)
    with pytest.raises(ConfigError, match="no such file"):
        check_ascend(tmp_path)


def test_a_process_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    folder = write_config(BY_TYPE["llama"], tmp_path / "llama")
    with pytest.raises(ChildError, match="did not end within"):
        check_ascend(folder, timeout=0.01)
