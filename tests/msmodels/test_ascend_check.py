"""Every family's prefill and decode graph passes MindSpore's front end with the fused operators it should have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docs.ascend import table
from docs.documents import ROOT

from msmodels.ascend_families import LAYERS, PACKED_GPT_OSS, SIZES, write_config
from msport.architectures import ARCHITECTURES
from msport.child import ChildError, call_in_child
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
            if name != PACKED_GPT_OSS and "expert products" in parts:
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
