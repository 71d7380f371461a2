"""Rows of a family's tensor table: which Hub tensors make which MindSpore parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msport.checkpoint import fp8, mxfp4

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One form in which the Hub may store a parameter: a transform of ``convert.transforms`` and its sources in
    order.
    """

    transform: str
    sources: tuple[tuple[str, Shape], ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter, named and shaped as Transformers has it.

    Of the recipes whose sources are all present, the one with the most sources is used. A `packed` parameter holds
    bytes, independent of the model's dtype.
    """

    name: str
    shape: Shape
    recipes: tuple[Recipe, ...]
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A tensor that a checkpoint may hold but the model does not use, with a reason for the user."""

    name: str
    reason: str


def plain(name: str, *shape: int) -> Weight:
    """A parameter with the same name and shape on the Hub."""
    return Weight(name, shape, (Recipe("copy", ((name, shape),)),))


def matrix(name: str, outputs: int, inputs: int) -> Weight:
    """A linear layer's weight ``[outputs, inputs]``, plain or in FP8 with one scale per block."""
    sources = _fp8_sources((name,), outputs, inputs)
    shape = (outputs, inputs)
    return Weight(name, shape, (Recipe("copy", ((name, shape),)), Recipe("fp8_blocks", sources)))


def mxfp4_experts(name: str, experts: int, inputs: int, outputs: int) -> Weight:
    """Expert weights ``[experts, inputs, outputs]``: MXFP4 packed along `inputs`, or plain."""
    packed = _packed_sources(name, experts, inputs, outputs)
    shape = (experts, inputs, outputs)
    return Weight(name, shape, (Recipe("mxfp4_transposed", packed), Recipe("copy", ((name, shape),))))


def packed_experts(name: str, experts: int, inputs: int, outputs: int) -> list[Weight]:
    """The blocks and scales of MXFP4 expert weights, for a model that computes from them."""
    sources = _packed_sources(name, experts, inputs, outputs)
    return [Weight(source, shape, (Recipe("copy", ((source, shape),)),), packed=True) for source, shape in sources]


def _packed_sources(name: str, experts: int, inputs: int, outputs: int) -> tuple[tuple[str, Shape], ...]:
    return (
        (f"{name}_blocks", (experts, outputs, inputs // mxfp4.BLOCK_VALUES, mxfp4.BLOCK_BYTES)),
        (f"{name}_scales", (experts, outputs, inputs // mxfp4.BLOCK_VALUES)),
    )


def stacked_experts(name: str, experts: int, inputs: int, outputs: int, source: str) -> Weight:
    """Expert weights ``[experts, inputs, outputs]`` from one layer ``[outputs, inputs]`` per expert, or plain.

    `source` is the layer's name with ``{e}`` where the expert's number goes; the layers may be in FP8.
    """
    names = [source.format(e=expert) for expert in range(experts)]
    return Weight(name, (experts, inputs, outputs), _stacks("stack_transposed", name, names, experts, inputs, outputs))


def stacked_gate_up(name: str, experts: int, inputs: int, outputs: int, gate: str, up: str) -> Weight:
    """``[experts, inputs, 2 * outputs]``, gate first, from one gate and one up layer ``[outputs, inputs]`` per expert.

    `gate` and `up` are the layers' names with ``{e}`` where the expert's number goes; the layers may be in FP8.
    """
    names = [pattern.format(e=expert) for expert in range(experts) for pattern in (gate, up)]
    recipes = _stacks("stack_concat_transposed", name, names, experts, inputs, outputs)
    return Weight(name, (experts, inputs, 2 * outputs), recipes)


def _stacks(
    transform: str, name: str, layers: Sequence[str], experts: int, inputs: int, outputs: int
) -> tuple[Recipe, ...]:
    plain_sources = tuple((layer, (outputs, inputs)) for layer in layers)
    whole = (experts, inputs, len(layers) // experts * outputs)
    return (
        Recipe(transform, plain_sources),
        Recipe(f"fp8_{transform}", _fp8_sources(layers, outputs, inputs)),
        Recipe("copy", ((name, whole),)),
    )


def _fp8_sources(layers: Sequence[str], outputs: int, inputs: int) -> tuple[tuple[str, Shape], ...]:
    """Each weight, followed by its scales."""
    scales = (-(-outputs // fp8.BLOCK), -(-inputs // fp8.BLOCK))
    pairs = [((layer, (outputs, inputs)), (f"{layer}_scale_inv", scales)) for layer in layers]
    return tuple(source for pair in pairs for source in pair)
