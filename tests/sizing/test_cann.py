"""What CANN's products take stays packed on Ascend, the inputs first; what they do not take is not given to them."""

from __future__ import annotations

import pytest

from msport.architectures import Weight
from msport.architectures.tensors import Role
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.encodings import MXFP4, Encoding, Grouped, Plain, Transposed
from msport.sizing.cann import arranged, takes_experts, takes_linear

LAYER, STACK = (256, 128), (8, 256, 128)


def row(name: str, role: Role) -> Weight:
    return Weight(name, STACK if role is Role.EXPERTS else LAYER, (), role)


@pytest.mark.parametrize(
    ("encoding", "shape", "dtype", "taken"),
    [
        (Grouped(4), LAYER, "bfloat16", True),
        (Grouped(8, 64, offsets=True, order=True), LAYER, "bfloat16", True),
        (Grouped(8, 128), LAYER, "bfloat16", True),
        (Grouped(4, scale_dtype=FLOAT16), LAYER, "float16", True),
        # Scales are not rounded to the dtype of the activations, and there is no product in float32.
        (Grouped(4, scale_dtype=FLOAT16), LAYER, "bfloat16", False),
        (Grouped(4), LAYER, "float16", False),
        (Grouped(4, scale_dtype=FLOAT32), LAYER, "float32", False),
        # Two outputs share a byte.
        (Grouped(4), (255, 128), "bfloat16", False),
        (Grouped(8), (255, 128), "bfloat16", True),
        (Grouped(8), (65535, 128), "bfloat16", True),
        (Grouped(8), (65536, 128), "bfloat16", False),
        (Grouped(8), (128, 65536), "bfloat16", False),
    ],
)
def test_a_linear_layer(encoding: Grouped, shape: tuple[int, ...], dtype: str, taken: bool) -> None:
    assert takes_linear(encoding, shape, dtype) == taken


@pytest.mark.parametrize(
    ("encoding", "taken"),
    [
        (Grouped(4), True),
        (Grouped(4, 128), True),
        (Grouped(4, 128, offsets=True), True),
        (Grouped(8, 128), True),
        (Grouped(8, 128, offsets=True), True),
        (Grouped(4, offsets=True), False),
        (Grouped(8), False),
        (Grouped(4, order=True), False),
        (Grouped(4, scale_dtype=FLOAT16), False),
    ],
)
def test_experts(encoding: Grouped, taken: bool) -> None:
    assert takes_experts(encoding, STACK, "bfloat16") == taken


def test_more_experts_than_the_product_counts_are_not_taken() -> None:
    assert takes_experts(Grouped(4), (1024, 256, 128), "bfloat16")
    assert not takes_experts(Grouped(4), (1025, 256, 128), "bfloat16")


def test_layers_are_transposed_or_decoded_and_an_embedding_is_decoded() -> None:
    rows = [row("q", Role.LINEAR), row("k", Role.LINEAR), row("head", Role.HEAD), row("embedding", Role.EMBEDDING)]
    kept: dict[str, Encoding] = {
        "q": Grouped(4),
        "k": Grouped(4, scale_dtype=FLOAT16),
        "head": Grouped(8),
        "embedding": Grouped(8),
    }
    assert arranged(rows, kept, "bfloat16") == {"q": Transposed(Grouped(4)), "head": Transposed(Grouped(8))}


def test_what_is_in_no_groups_stays_as_it_lies() -> None:
    rows = [row("q", Role.LINEAR), row("experts", Role.EXPERTS), row("k", Role.LINEAR)]
    kept: dict[str, Encoding] = {"q": Plain(BFLOAT16), "experts": MXFP4, "k": Grouped(4)}
    assert arranged(rows, kept, "bfloat16") == {**kept, "k": Transposed(Grouped(4))}


@pytest.mark.parametrize("down", [Grouped(8), MXFP4, Plain(BFLOAT16)])
def test_experts_are_transposed_if_a_product_takes_all_of_them(down: Encoding) -> None:
    """The graph decodes all experts of a layer, or none: a plain stack has a product."""
    rows = [row("gate_up", Role.EXPERTS), row("down", Role.EXPERTS)]
    kept: dict[str, Encoding] = {"gate_up": Grouped(4), "down": down}
    found = arranged(rows, kept, "bfloat16")
    assert found["down"] == down
    assert found["gate_up"] == (Transposed(Grouped(4)) if isinstance(down, Plain) else Grouped(4))
    assert arranged(rows, {**kept, "down": Grouped(4)}, "bfloat16")["down"] == Transposed(Grouped(4))
