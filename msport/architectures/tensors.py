"""Rows of a family's tensor table: which Hub tensors make which MindSpore parameter."""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]

MXFP4_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way in which the Hub may ship a parameter: a transform of ``convert.transforms`` and its sources in order."""

    transform: str
    sources: tuple[tuple[str, Shape], ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter, named and shaped as Transformers has it; the first recipe whose sources are all there is taken.

    A `packed` one is bytes, whatever the dtype of the model.
    """

    name: str
    shape: Shape
    recipes: tuple[Recipe, ...]
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A tensor that a checkpoint may hold and the model does not use, with the reason that is shown to the user."""

    name: str
    reason: str


def plain(name: str, *shape: int) -> Weight:
    """A parameter that the Hub ships under the same name and shape."""
    return Weight(name, shape, (Recipe("copy", ((name, shape),)),))


def mxfp4_experts(name: str, experts: int, inputs: int, outputs: int) -> Weight:
    """Expert weights ``[experts, inputs, outputs]``: MXFP4 packed along `inputs`, or as they are."""
    packed = _packed_sources(name, experts, inputs, outputs)
    shape = (experts, inputs, outputs)
    return Weight(name, shape, (Recipe("mxfp4_transposed", packed), Recipe("copy", ((name, shape),))))


def packed_experts(name: str, experts: int, inputs: int, outputs: int) -> list[Weight]:
    """The blocks and scales of MXFP4 expert weights, for a model that computes from them."""
    sources = _packed_sources(name, experts, inputs, outputs)
    return [Weight(source, shape, (Recipe("copy", ((source, shape),)),), packed=True) for source, shape in sources]


def _packed_sources(name: str, experts: int, inputs: int, outputs: int) -> tuple[tuple[str, Shape], ...]:
    return (
        (f"{name}_blocks", (experts, outputs, inputs // MXFP4_BLOCK, MXFP4_BLOCK // 2)),
        (f"{name}_scales", (experts, outputs, inputs // MXFP4_BLOCK)),
    )


def stacked_experts(name: str, experts: int, inputs: int, outputs: int, source: str) -> Weight:
    """Expert weights ``[experts, inputs, outputs]`` from a layer ``[outputs, inputs]`` an expert, or as they are.

    `source` is the layer's name with ``{e}`` where the expert's number goes.
    """
    sources = tuple((source.format(e=expert), (outputs, inputs)) for expert in range(experts))
    shape = (experts, inputs, outputs)
    return Weight(name, shape, (Recipe("stack_transposed", sources), Recipe("copy", ((name, shape),))))


def stacked_gate_up(name: str, experts: int, inputs: int, outputs: int, gate: str, up: str) -> Weight:
    """``[experts, inputs, 2 * outputs]``, gate first, from a gate and an up layer ``[outputs, inputs]`` an expert.

    `gate` and `up` are the layers' names with ``{e}`` where the expert's number goes.
    """
    names = [pattern.format(e=expert) for expert in range(experts) for pattern in (gate, up)]
    sources = tuple((source, (outputs, inputs)) for source in names)
    shape = (experts, inputs, 2 * outputs)
    return Weight(name, shape, (Recipe("stack_concat_transposed", sources), Recipe("copy", ((name, shape),))))
