"""What a model needs is counted part by part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.made_reports import CONFIG

from msport.architectures import ARCHITECTURES
from msport.sizing.costs import Costs
from msport.sizing.fit import estimate, most_that_fits
from msport.sizing.kept import packed_experts

COSTS = Costs(CONFIG, "float32")


def test_caches_are_counted_by_window_and_batch() -> None:
    # 2 layers see 24 tokens beside a chunk of 128, 2 see all 512; keys and values of 2 heads of 32 float32 numbers.
    slots = 2 * (24 + 128) + 2 * 512
    need = estimate(COSTS, 512, 3)
    assert need.caches == 3 * slots * 2 * 2 * 32 * 4
    assert need.weights == COSTS.weight_bytes
    assert need.total == need.weights + need.caches + need.workspace


def test_the_workspace_grows_with_layers_batch_and_vocabulary() -> None:
    workspace = estimate(COSTS, 512, 1).workspace
    assert estimate(COSTS, 512, 8).workspace > workspace
    for change in ({"vocab_size": 200_000}, {"hidden_size": 4096}):
        assert estimate(Costs(replace(CONFIG, **change), "float32"), 512, 1).workspace > workspace


def _by_length(costs: Costs, **where: bool) -> float:
    """Bytes of workspace that each of a thousand positions more takes."""
    short, long = (estimate(costs, length, 1, **where).workspace for length in (128, 128 + 1024))
    return (long - short) / 1024


def _costs(architecture: str, dtype: str) -> Costs:
    family = ARCHITECTURES[architecture]
    return Costs(family.parse({**family.sample_config(), "num_hidden_layers": 4}, Path("config.json")), dtype)


def test_portable_operators_hold_scores_for_every_position_in_every_full_layer_and_need_more_to_begin_with() -> None:
    # Measured: 107 kB a position with two full layers of 8 heads, 203 kB with four; 954 and 740 MB in all.
    for costs, portable in ((COSTS, True), (Costs(CONFIG, "float16"), False)):
        assert 107e3 <= _by_length(costs, portable=portable) < 130e3
    assert _by_length(COSTS) == 0
    eight = Costs(replace(CONFIG, num_hidden_layers=8, windows=CONFIG.windows * 2), "float16")
    assert 203e3 <= _by_length(eight) < 250e3
    # 48 kB a position with two full layers and neither sinks nor soft-cap, 459 kB with a soft-cap.
    assert 48e3 <= _by_length(_costs("Qwen2ForCausalLM", "float16")) < 58e3
    assert 459e3 <= _by_length(_costs("Gemma2ForCausalLM", "float16")) < 550e3
    assert estimate(COSTS, 2132, 1, portable=True).total > 954e6
    assert estimate(COSTS, 130, 1, portable=True).total > 740e6


def test_on_a_device_only_attention_with_a_soft_cap_or_a_portable_one_holds_its_scores() -> None:
    capped = _costs("Gemma2ForCausalLM", "float16")
    assert _by_length(capped, on_device=True) == 2 * 128 * capped.config.num_attention_heads * 4
    assert _by_length(Costs(CONFIG, "float16"), on_device=True) == 0
    assert _by_length(COSTS, on_device=True, portable=True) == 2 * 128 * CONFIG.num_attention_heads * 4
    assert _by_length(Costs(capped.config, "float32")) == 0


def test_packed_experts_need_less() -> None:
    assert Costs(CONFIG, "float32", packed_experts(CONFIG)).weight_bytes < COSTS.weight_bytes


def test_half_precision_keeps_copies_on_the_cpu_and_none_on_a_device() -> None:
    half = Costs(CONFIG, "float16")
    assert estimate(half, 512, 1).workspace > estimate(half, 512, 1, on_device=True).workspace + 2 * half.weight_bytes
    assert estimate(half, 512, 1, on_device=True).total < estimate(COSTS, 512, 1, on_device=True).total


def test_what_fits_is_the_most_that_fits() -> None:
    assert most_that_fits(lambda number: 10 * number, 1000, 555) == 55
    assert most_that_fits(lambda number: 10 * number, 50, 555) == 50
    assert most_that_fits(lambda number: 10 * number, 1000, 9) == 0
