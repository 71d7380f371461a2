"""Rows of a family's tensor table: which Hub tensors make which MindSpore parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from msport.encodings import Shape, stored_shape


class Role(Enum):
    """What a weight does in the network. A token reads all of it, one row of the embedding, or the experts that it is
    routed to.
    """

    LINEAR = "linear"
    EXPERTS = "experts"
    EXPERT_BIASES = "expert biases"
    ROUTER = "router"
    EMBEDDING = "embedding"
    HEAD = "head"
    OTHER = "other"


# The matrices that a quantisation packs: nearly all parameters of a large model, and the least sensitive ones.
QUANTISED = (Role.LINEAR, Role.EXPERTS)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix ``[..., outputs, inputs]`` or vector on the Hub; `name` is that of its plain tensor."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Form:
    """One form in which the Hub may ship a weight: one matrix, or `per_expert` layers ``[outputs, inputs]`` for each
    expert. Any encoding may hold a matrix.
    """

    matrices: tuple[Matrix, ...]
    per_expert: int | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter, named as in Transformers, a `matrix` ``[..., outputs, inputs]`` or vector.

    Of the `forms`, the one of which a checkpoint has most tensors is used.
    """

    name: str
    matrix: Shape
    forms: tuple[Form, ...]
    role: Role = Role.OTHER

    @property
    def shape(self) -> Shape:
        """The shape of the parameter in Transformers: a stack of experts has its inputs first."""
        return stored_shape(self.matrix)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A tensor that a checkpoint may hold but the model does not use, with a reason for the user."""

    name: str
    reason: str


def plain(name: str, *shape: int, role: Role = Role.OTHER) -> Weight:
    """A parameter with the same name and shape on the Hub."""
    return Weight(name, shape, (Form((Matrix(name, shape),)),), role)


def matrix(name: str, outputs: int, inputs: int, role: Role = Role.LINEAR) -> Weight:
    """A linear layer's weight ``[outputs, inputs]``."""
    return plain(name, outputs, inputs, role=role)


def experts(name: str, experts: int, inputs: int, outputs: int) -> Weight:
    """The weights of all experts in one stack."""
    return plain(name, experts, outputs, inputs, role=Role.EXPERTS)


def stacked_experts(name: str, experts: int, inputs: int, outputs: int, source: str) -> Weight:
    """A stack of experts from one layer ``[outputs, inputs]`` per expert, or whole.

    `source` is the layer's name with ``{e}`` where the expert's number goes.
    """
    names = [source.format(e=expert) for expert in range(experts)]
    return _stack(name, names, experts, inputs, outputs)


def stacked_gate_up(name: str, experts: int, inputs: int, outputs: int, gate: str, up: str) -> Weight:
    """A stack of experts with ``2 * outputs`` outputs, gate first, from one gate and one up layer ``[outputs, inputs]``
    per expert, or whole.

    `gate` and `up` are the layers' names with ``{e}`` where the expert's number goes.
    """
    names = [pattern.format(e=expert) for expert in range(experts) for pattern in (gate, up)]
    return _stack(name, names, experts, inputs, outputs)


def _stack(name: str, layers: Sequence[str], experts: int, inputs: int, outputs: int) -> Weight:
    per_expert = len(layers) // experts
    whole = (experts, per_expert * outputs, inputs)
    forms = (
        Form(tuple(Matrix(layer, (outputs, inputs)) for layer in layers), per_expert),
        Form((Matrix(name, whole),)),
    )
    return Weight(name, whole, forms, Role.EXPERTS)
