"""Cells that replace cells of a layer and keep the values that pass through them, inside the graph.

The layer's own `construct` runs with its own weights. A tap calls the cell that it replaced and copies the value into a
parameter. The shape decides whether a value is kept: the one-token graph of the same layer keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from msport.checkpoint.dtypes import Array
from msport.validate import operations
from msport.validate.operations import ACTIVATION, ATTENDED, ATTENTION, CHOSEN, MLP_NORM, OUTPUT, ROTARY, ROUTER, SHARES


def keep(kept: Parameter, value: Tensor) -> None:
    """Copies `value` into `kept` if the sizes are equal."""
    if value.size == kept.size:
        ops.assign(kept, value.reshape(kept.shape).astype(kept.dtype))


class Tap(nn.Cell):
    """Replaces a cell with one argument; keeps the output and optionally the input."""

    def __init__(self, cell: nn.Cell, output: Parameter | None, given: Parameter | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.output = output
        self.given = given

    def construct(self, x: Tensor) -> Tensor:
        if self.given is not None:
            keep(self.given, x)
        y = self.cell(x)
        if self.output is not None:
            keep(self.output, y)
        return y


class CacheTap(nn.Cell):
    """Replaces a key-value cache; keeps the keys that were written to it, to which RoPE was applied."""

    def __init__(self, cell: nn.Cell, key: Parameter | None) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.key = key

    def construct(
        self, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        rotated, keys, values = self.cell(query, key, value, cos, sin, slots)
        if self.key is not None:
            keep(self.key, ops.gather(keys, slots, 0))
        return rotated, keys, values


class ExpertsTap(nn.Cell):
    """Replaces experts; keeps their routing."""

    def __init__(self, cell: nn.Cell, chosen: Parameter | None, shares: Parameter | None) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.chosen = chosen
        self.shares = shares

    def construct(self, x: Tensor, indices: Tensor, routing: Tensor) -> Tensor:
        if self.chosen is not None:
            keep(self.chosen, indices)
        if self.shares is not None:
            keep(self.shares, routing)
        return self.cell(x, indices, routing)


class MlpNormTap(nn.Cell):
    """Replaces the norm between the halves of a layer; if `isolated` is set, the second half gets `injected`
    instead.
    """

    def __init__(
        self, cell: nn.Cell, injected: Parameter, isolated: Parameter, attended: Parameter, output: Parameter | None
    ) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.injected = injected
        self.isolated = isolated
        self.attended = attended
        self.output = output

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """As ``RMSNorm.add``."""
        if x.size != self.injected.size:
            normalised, total = self.cell.add(x, residual)
            return normalised, total
        keep(self.attended, x + residual)
        isolated = ops.broadcast_to(self.isolated, x.shape)
        stream = ops.select(isolated, self.injected.astype(x.dtype), x)
        added = ops.select(isolated, ops.zeros_like(residual), residual)
        normalised, total = self.cell.add(stream, added)
        if self.output is not None:
            keep(self.output, normalised)
        return normalised, total


class Taps:
    """The taps of one layer, for `rows` tokens at a time. `features` maps each operation to keep to its number of
    features.
    """

    def __init__(self, rows: int, hidden: int, features: Mapping[str, int]) -> None:
        # The parameters are here, not in the cells, because a graph keeps those with which it was compiled.
        self._kept = {name: _parameter(name, rows, width) for name, width in features.items() if name != OUTPUT}
        self._injected = Parameter(Tensor(np.zeros((rows, hidden), np.float32)), name="injected", requires_grad=False)
        self._isolated = Parameter(Tensor(np.zeros(1, bool)), name="isolated", requires_grad=False)
        self._tapped: frozenset[str] = frozenset()

    @contextmanager
    def on(self, layer: nn.Cell) -> Iterator[None]:
        """Puts the taps into `layer` during this context. Graphs compiled meanwhile keep them; `layer` does not."""
        undo: list[tuple[Any, str, Any]] = []

        def replace(owner: Any, name: str, tap: nn.Cell) -> None:
            undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, tap)

        try:
            for owner, name, tap in self._make(layer):
                replace(owner, name, tap)
            yield
        finally:
            for owner, name, cell in reversed(undo):
                setattr(owner, name, cell)

    def isolate(self, injected: Array | None) -> None:
        """Gives the second half ``injected [rows, hidden]`` from now on; None: the output of the first half."""
        self._isolated.set_data(Tensor(np.array([injected is not None])))
        if injected is not None:
            self._injected.set_data(Tensor(injected))

    def read(self, count: int) -> dict[str, Array]:
        """The first `count` rows that the last call kept, ``[count, features]`` by operation. These are copies, because
        the next call writes to the same memory.

        Leaves out operations that the layer lacks or whose values had another size.
        """
        rows = {name: self._kept[name].asnumpy()[:count].copy() for name in self._kept if name in self._tapped}
        return {name: values for name, values in rows.items() if not (values == _unwritten(name)).all()}

    def _make(self, layer: nn.Cell) -> list[tuple[Any, str, nn.Cell]]:
        modules, kept = operations.find_modules(layer), self._kept
        attention, block = layer.self_attn, operations.feed_forward(layer)
        norm = modules[MLP_NORM]
        between = MlpNormTap(norm, self._injected, self._isolated, kept[ATTENDED], kept.get(MLP_NORM))
        made: list[tuple[Any, str, nn.Cell]] = [
            (attention, "cache", CacheTap(attention.cache, kept.get(ROTARY))),
            (*_home(layer, norm), between),
        ]
        if ROUTER in modules:
            made.append((block, "experts", ExpertsTap(block.experts, kept.get(CHOSEN), kept.get(SHARES))))
        inputs = {"o_proj": ATTENTION, "down_proj": ACTIVATION}
        for name, cell in modules.items():
            if name != MLP_NORM:
                tap = Tap(cell, kept.get(name), kept.get(inputs.get(name, "")))
                made.append((*_home(layer, cell), tap))
        derived = {ROTARY, ATTENTION, ATTENDED} | ({CHOSEN, SHARES} if ROUTER in modules else {ACTIVATION})
        self._tapped = frozenset(modules) | derived
        return made


def _parameter(name: str, rows: int, width: int) -> Parameter:
    values = np.full((rows, width), _unwritten(name))
    return Parameter(Tensor(values), name=f"tap {name}".replace(" ", "_"), requires_grad=False)


def _unwritten(name: str) -> np.generic:
    """The initial values, which no layer produces, to mark rows that no call has written."""
    return np.int32(-1) if name == CHOSEN else np.finfo(np.float32).min


def _home(layer: nn.Cell, cell: nn.Cell) -> tuple[Any, str]:
    """The cell that has `cell` as an attribute, and the attribute's name."""
    for _, owner in layer.cells_and_names():
        for name, child in owner.name_cells().items():
            if child is cell:
                return owner, name
    raise AssertionError(f"{cell} is no part of the layer")
